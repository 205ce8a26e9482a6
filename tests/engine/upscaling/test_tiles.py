"""Tiles of one side: they cover it, are all as long, and what they count for adds up to one everywhere."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pocketxl.engine.upscaler import OVERLAP, TILE
from pocketxl.engine.upscaling.tiles import MARGIN, Tiles


@given(length=st.integers(1, 20_000), scale=st.sampled_from([1, 2, 4]))
def test_they_cover_the_side_and_count_for_one(length: int, scale: int) -> None:
    tiles = Tiles.along(length)
    total = np.zeros(length * scale)
    for start, weights in zip(tiles.starts, tiles.weights(scale), strict=True):
        assert start >= 0
        assert start + tiles.side <= length
        assert len(weights) == tiles.side * scale
        total[start * scale : (start + tiles.side) * scale] += weights
    assert np.abs(total - 1).max() < 1e-6
    assert tiles.side <= TILE
    assert (length <= TILE) == (len(tiles.starts) == 1)


@given(length=st.integers(TILE + 1, 20_000))
def test_neighbours_share_enough_and_only_neighbours_do(length: int) -> None:
    tiles = Tiles.along(length)
    steps = np.diff(tiles.starts)
    assert (tiles.side - steps >= OVERLAP).all()
    assert (2 * steps[:1] >= tiles.side - 2).all()
    assert tiles.side - steps.min() <= OVERLAP + TILE // 2


def test_what_lies_at_an_edge_inside_the_picture_does_not_count() -> None:
    tiles = Tiles.along(2 * TILE)
    first, middle, last = tiles.weights(1)
    assert not first[-MARGIN:].any()
    assert not middle[:MARGIN].any()
    assert not middle[-MARGIN:].any()
    assert not last[:MARGIN].any()
    assert (first[: TILE // 2] == 1).all(), "the picture's own edge does"
    assert (last[-TILE // 2 :] == 1).all()
