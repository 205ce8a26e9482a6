"""Places for low-rank pairs in a program: what a layer's call becomes where something is added to it (LoRA).

Three calls: one brings the layer's input down to the pair's ranks, as it lies there for the layer's own; the layer's
own; and a product of halves that brings the ranks up and adds them to its output. Layers that are multiplied at once
have their ranks side by side. Their factors are inputs that are held, so that a graph stays good when others take their
place, and no weight is read or rounded again. Beside `program.json`, over the same weights and kernels.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import IntegrityError
from ..folder.described import REBUILD, parsed, read_text
from ..folder.schema import decode, encode
from .checks import check
from .program import Call, Edge, Layout, Option, Program, ValueSpec
from .read import MOST_BYTES, as_text
from .sizes import Sizes, is_rank

SLOTS_FILE = "slots.json"
FORMAT = 1

RANKS = (64, 128, 256, 512)
"""Of all layers of a call: kernels are compiled for these, and a pair of fewer ranks has zeros behind them."""


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One call's.

    `layers`: those that it multiplies, whose outputs stand side by side. `at`: its place among the program's calls.
    `calls`: what stands there instead. `down`: `[ranks, in]`, of a convolution `[ranks, height, width, in]`, with the
    scale of each row where it is of 8 bits. `up`: `[out, ranks]`. `inverse`: the weight `[in]`, float32, that the
    layer's input was multiplied with before it was rounded to 8 bits, where no scale comes beside it. `channels`: a
    convolution's, of each picture that stands side by side in its input, without what they are padded with.
    """

    layers: tuple[str, ...]
    at: int
    calls: tuple[Call, ...]
    down: ValueSpec
    down_scale: ValueSpec | None
    up: ValueSpec
    inverse: str | None = None
    channels: tuple[int, ...] = ()

    @property
    def values(self) -> tuple[ValueSpec, ...]:
        """What must be held."""
        return tuple(value for value in (self.down, self.down_scale, self.up) if value is not None)


@dataclass(frozen=True, kw_only=True)
class Slots:
    """What `slots.json` says."""

    format: int = FORMAT
    slots: tuple[Slot, ...]


def opened(program: Program, slots: Iterable[Slot], layers: Collection[str]) -> Program:
    """The program with the slots of these layers; the others' calls are as they were."""
    chosen = {slot.at: slot for slot in slots if not set(slot.layers).isdisjoint(layers)}
    calls = [chosen[at].calls if at in chosen else (call,) for at, call in enumerate(program.calls)]
    edges = [
        Edge(tensor=value.name, layout=Layout.ROWS, values=(value,))
        for slot in chosen.values()
        for value in slot.values
    ]
    return replace(program, calls=tuple(call for some in calls for call in some), inputs=(*program.inputs, *edges))


def with_rank(shape: Mapping[str, Option], rank: int) -> dict[str, Option]:
    """A call's shape with numbers for ranks alone."""
    at = Sizes(batch=1, height=1, width=1, rank=rank)
    return {name: at[value] if isinstance(value, str) and is_rank(value) else value for name, value in shape.items()}


def slots_text(slots: Iterable[Slot]) -> str:
    """The text of `slots.json`: equal slots have equal texts."""
    return as_text(encode(Slots(slots=tuple(slots))))


def read_slots(path: Path, program: Program) -> tuple[Slot, ...]:
    """The slots of a program, from the file whose hash has matched. Raises as `read.from_json`."""
    where = str(path)
    text = read_text(path, "slots of a program", most=MOST_BYTES)
    found = decode(Slots, parsed(text, where, "slots of a program", format=FORMAT), where).slots
    if len({slot.at for slot in found if 0 <= slot.at < len(program.calls)}) != len(found):
        raise IntegrityError(f"{where} has two slots for a call, or one for a call that there is not; {REBUILD}")
    for slot in found:
        weight = None if slot.inverse is None else program.weights.get(slot.inverse)
        if slot.inverse is not None and (
            weight is None or (weight.dtype, weight.shape) != ("float32", slot.down.shape[1:])
        ):
            raise IntegrityError(
                f"{where} names {slot.inverse!r}, which is no weight of that layer's inputs; {REBUILD}"
            )
    check(opened(program, found, {layer for slot in found for layer in slot.layers}), where)
    return found
