"""Low-rank pairs as slots have them: what their numbers multiply out to, and which are refused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketxl.engine.errors import RequestError
from pocketxl.engine.folder.openings import Shape, pair_inputs
from pocketxl.engine.program.program import ValueSpec
from pocketxl.engine.program.slots import RANKS, Slot
from pocketxl.engine.runners.cuda_slots import Pair, rank_for, slot_arrays

from ...tolerances import SLOT_HALF_RELATIVE, SLOT_INT8_RELATIVE

RANK = RANKS[0]


def _allowed(eight: bool) -> float:
    return SLOT_INT8_RELATIVE if eight else SLOT_HALF_RELATIVE


def slot(layers: int, taken: tuple[int, ...], out: int, *, eight: bool, channels: tuple[int, ...] = ()) -> Slot:
    ranks = f"ranks{layers}"
    return Slot(
        layers=tuple(f"layer.{i}" for i in range(layers)),
        at=0,
        calls=(),
        down=ValueSpec(name="down", shape=(ranks, *taken), dtype="int8" if eight else "float16"),
        down_scale=ValueSpec(name="scale", shape=(ranks,), dtype="float32") if eight else None,
        up=ValueSpec(name="up", shape=(out, ranks)),
        channels=channels,
    )


def pair(shape: Shape, rank: int, seed: int, size: float = 1.0) -> Pair:
    random = np.random.default_rng(seed)
    down, up = (
        random.standard_normal([rank if isinstance(side, str) else side for side in tensor.shape]).astype(np.float32)
        for tensor in pair_inputs("any", shape)
    )
    return down * np.float32(size), up


def change(shape: Shape, given: Pair) -> np.ndarray:
    """What a pair adds to a weight `[out, …]`."""
    down, up = given
    rows, columns = (down.T, up.T) if len(shape) == 2 else (down.reshape(len(down), -1), up.reshape(len(up), -1))
    found: np.ndarray = (columns @ rows).reshape(shape)
    return found


def multiplied(made: dict[str, np.ndarray]) -> np.ndarray:
    """`[out, …]` as the kernels' numbers give it."""
    down = made["down"].astype(np.float32)
    if "scale" in made:
        down = down * made["scale"].reshape(-1, *[1] * (down.ndim - 1))
    found: np.ndarray = np.tensordot(made["up"].astype(np.float32), down, axes=1)
    return found


@given(
    ranks=st.lists(st.integers(0, RANK), min_size=1, max_size=3).filter(any),
    eight=st.booleans(),
    size=st.sampled_from([1e-6, 1.0, 1e6]),
    seed=st.integers(0, 2**31),
)
def test_layers_side_by_side_have_ranks_of_their_own(ranks: list[int], eight: bool, size: float, seed: int) -> None:
    """Some without a pair. Whatever share of a pair's size lies in the way down."""
    shapes = {f"layer.{i}": (8, 24) for i in range(len(ranks))}
    pairs = {
        name: (down, up / np.float32(size))
        for (name, shape), rank in zip(shapes.items(), ranks, strict=True)
        if rank
        for down, up in [pair(shape, rank, seed, size)]
    }
    own = slot(len(ranks), (24,), 8 * len(ranks), eight=eight)
    found = multiplied(slot_arrays(own, pairs, shapes, rank_for(pairs)))
    for i, name in enumerate(own.layers):
        part = found[8 * i : 8 * i + 8]
        if name not in pairs:
            assert not part.any()
            continue
        wanted = change(shapes[name], pairs[name])
        assert np.linalg.norm(part - wanted) <= _allowed(eight) * np.linalg.norm(wanted)


def test_what_an_input_was_multiplied_with_is_taken_out_of_the_way_down() -> None:
    """The kernels see the input times the inverse of its steps, channel by channel."""
    shape = (8, 24)
    given_pair = pair(shape, 5, 1)
    inverse = np.geomspace(0.5, 900, 24).astype(np.float32)
    own = replace(slot(1, (24,), 8, eight=True), inverse="layer.0.inverse")
    found = multiplied(slot_arrays(own, {"layer.0": given_pair}, {"layer.0": shape}, RANK, inverse)) * inverse
    # By the largest of a row, which is now its coarsest channel's: what is small beside it is small in the sum too.
    wanted = change(shape, given_pair)
    x = np.random.default_rng(3).standard_normal((50, 24)) / inverse
    off = np.linalg.norm(x @ (found - wanted).T) / np.linalg.norm(x @ wanted.T)
    assert off <= 2 * SLOT_INT8_RELATIVE


@given(
    channels=st.lists(st.integers(1, 40), min_size=1, max_size=2), kernel=st.sampled_from([1, 3]), eight=st.booleans()
)
def test_channels_of_pictures_are_padded_as_values_are(channels: list[int], kernel: int, eight: bool) -> None:
    shape, padded = (20, sum(channels), kernel, kernel), [-(-c // 16) * 16 for c in channels]
    given_pair = pair(shape, 3, 1)
    own = slot(1, (kernel, kernel, sum(padded)), 32, eight=eight, channels=tuple(channels))
    found = multiplied(slot_arrays(own, {"layer.0": given_pair}, {"layer.0": shape}, RANK))
    wanted, start, at = change(shape, given_pair).transpose(0, 2, 3, 1), 0, 0
    assert not found[20:].any(), "output channels that the layer does not have"
    for count, wide in zip(channels, padded, strict=True):
        part = found[:20, ..., at : at + wide]
        assert not part[..., count:].any()
        expected = wanted[..., start : start + count]
        assert np.linalg.norm(part[..., :count] - expected) <= _allowed(eight) * np.linalg.norm(expected)
        start, at = start + count, at + wide


def test_ranks_are_those_of_the_next_kernels() -> None:
    shape = (8, 24)
    for rank, wanted in ((1, 64), (64, 64), (65, 128), (512, 512)):
        assert rank_for({"a": pair(shape, 1, 0), "b": pair(shape, rank, 0)}) == wanted
    with pytest.raises(RequestError, match=r"added to b come to 513, and this engine takes 512; give fewer LoRAs"):
        rank_for({"a": pair(shape, 1, 0), "b": pair(shape, 513, 0)})


def test_what_halves_cannot_hold_is_refused() -> None:
    down, up = pair((8, 24), 4, 0)
    with pytest.raises(RequestError, match=r"what is added to layer.0 has numbers up to .*, and halves end at 65504"):
        slot_arrays(slot(1, (24,), 8, eight=True), {"layer.0": (down, up * 1e6)}, {"layer.0": (8, 24)}, RANK)
