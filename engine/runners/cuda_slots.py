"""Low-rank pairs as a program's slots have them: in 8 bits or halves, ranks side by side, zeros behind the last.

Every row of the way down is made of length 1, and the way up takes its length: then no halves in between leave their
range where those of the layer's own input do not.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from ..errors import RequestError
from ..folder.openings import Shape
from ..program.program import ValueSpec
from ..program.sizes import Sizes
from ..program.slots import RANKS, Slot

Floats = npt.NDArray[np.float32]
Pair = tuple[Floats, Floats]
"""`down` and `up` as an open graph takes them: see `folder.openings.pair_inputs`."""

_STEPS: Final = 127
_LEAST: Final = np.float32(1e-30)
_ALIGNED: Final = 16
"""Channels of a picture come in multiples of so many."""


def rank_for(pairs: Mapping[str, Pair]) -> int:
    """The ranks that kernels are there for, for the largest of these. Raises `RequestError`: that is too large."""
    layer, largest = max(((layer, _rank(pair)) for layer, pair in pairs.items()), key=lambda found: found[1])
    for rank in RANKS:
        if largest <= rank:
            return rank
    raise RequestError(
        f"the ranks of what is added to {layer} come to {largest}, and this engine takes {RANKS[-1]}; give fewer LoRAs "
        "at once, or build some of them into an engine (build --lora FILE)"
    )


def slot_arrays(
    slot: Slot, pairs: Mapping[str, Pair], shapes: Mapping[str, Shape], rank: int, inverse: Floats | None = None
) -> dict[str, np.ndarray]:
    """Value → its numbers, for a slot of which some layer has a pair. `shapes`: of its layers' weights.

    `inverse`: the numbers of the weight that the slot names so, if it does.

    Raises `RequestError` for pairs that halves cannot hold.
    """
    at = Sizes(batch=1, height=1, width=1, rank=rank)
    down, up = (np.zeros(_shape(value, at), np.float32) for value in (slot.down, slot.up))
    row = 0
    for i, layer in enumerate(slot.layers):
        if layer in pairs:
            down_rows, up_columns = _balanced(slot, *pairs[layer])
            count = len(down_rows)
            down[i * rank : i * rank + count] = down_rows if inverse is None else down_rows / inverse
            up[row : row + len(up_columns), i * rank : i * rank + count] = up_columns
        row += shapes[layer][0]
    found = {slot.up.name: _halves(up, slot)}
    if slot.down_scale is None:
        return {**found, slot.down.name: _halves(down, slot)}
    size = np.abs(down).max(axis=tuple(range(1, down.ndim)), initial=0)
    scale = np.maximum(size, _LEAST) / np.float32(_STEPS)
    numbers = np.rint(down / scale.reshape(-1, *[1] * (down.ndim - 1))).astype(np.int8)
    return {**found, slot.down.name: numbers, slot.down_scale.name: scale.astype(np.float32)}


def _balanced(slot: Slot, down: Floats, up: Floats) -> Pair:
    """Rows of the way down `[rank, …]`, laid out and of length 1, and the columns `[out, rank]` that have it."""
    rows = down if slot.channels else down.T
    length = np.sqrt(np.square(rows.reshape(len(rows), -1), dtype=np.float64).sum(1))
    length = np.where(length > 0, length, 1).astype(np.float32)
    rows = rows / length.reshape(-1, *[1] * (rows.ndim - 1))
    columns = up.reshape(len(up), -1) if slot.channels else up.T
    return (_pixels(rows, slot.channels) if slot.channels else rows), columns * length


def _pixels(rows: Floats, channels: Sequence[int]) -> Floats:
    """`[rank, in, height, width]` as `[rank, height, width, in]`, each picture's channels padded."""
    parts, start = [], 0
    for count in channels:
        part = rows[:, start : start + count]
        parts.append(np.pad(part, ((0, 0), (0, -count % _ALIGNED), (0, 0), (0, 0))))
        start += count
    return np.concatenate(parts, 1).transpose(0, 2, 3, 1)


def _halves(values: Floats, slot: Slot) -> np.ndarray:
    largest = float(np.abs(values).max(initial=0))
    if not largest <= float(np.finfo(np.float16).max):
        raise RequestError(
            f"what is added to {slot.layers[0]} has numbers up to {largest:.3g}, and halves end at 65504; give the "
            "LoRA a smaller weight"
        )
    return values.astype(np.float16)


def _rank(pair: Pair) -> int:
    down, _ = pair
    return int(down.shape[1] if down.ndim == 2 else down.shape[0])


def _shape(value: ValueSpec, at: Sizes) -> tuple[int, ...]:
    return tuple(at[length] for length in value.shape)
