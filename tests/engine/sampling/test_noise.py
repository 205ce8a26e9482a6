"""Noise equals torch's CPU generator, draw after draw, and is a picture's own."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketxl.engine.sampling.noise import BatchNoise, NoiseStream

from ...tolerances import NOISE_ULPS

SHAPES = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=3), min_size=1, max_size=4)


def ulps(ours: np.ndarray, theirs: np.ndarray) -> float:
    assert ours.dtype == theirs.dtype == np.float32
    assert ours.shape == theirs.shape
    size = np.maximum(np.abs(ours), np.abs(theirs))
    return float(np.max(np.abs(ours.astype(np.float64) - theirs) / np.spacing(size)))


@given(seed=st.integers(0, 2**64 - 1), shapes=SHAPES)
@settings(deadline=None, max_examples=100)
def test_any_draws_equal_torchs(seed: int, shapes: list[list[int]]) -> None:
    generator, stream = torch.Generator("cpu").manual_seed(seed), NoiseStream(seed)
    for shape in shapes:
        assert ulps(stream.normal(shape), torch.randn(shape, generator=generator).numpy()) <= NOISE_ULPS


@pytest.mark.parametrize("seed", [0, 1, 42, 2**32 - 1, 2**40 + 3])
def test_latents_of_a_1024_picture(seed: int) -> None:
    theirs = torch.randn((1, 4, 128, 128), generator=torch.Generator("cpu").manual_seed(seed)).numpy()
    assert ulps(NoiseStream(seed).normal((1, 4, 128, 128)), theirs) <= NOISE_ULPS


def test_short_draws_keep_their_spare_value_across_long_ones() -> None:
    generator, stream = torch.Generator("cpu").manual_seed(5), NoiseStream(5)
    for shape in ((3,), (16,), (1,), (17,), (15,), (33,), (2,)):
        assert ulps(stream.normal(shape), torch.randn(shape, generator=generator).numpy()) <= NOISE_ULPS


def test_a_row_is_the_same_alone_and_in_a_batch() -> None:
    batch, alone = BatchNoise([3, 1, 2]), BatchNoise([1])
    for _ in range(2):
        np.testing.assert_array_equal(batch.normal((4, 5, 3))[1:2], alone.normal((4, 5, 3)))
    assert len(batch) == 3


def test_rows_differ() -> None:
    rows = BatchNoise([1, 2, 3]).normal((4, 4))
    assert all(not np.array_equal(a, b) for a, b in pairwise(rows))


def test_numpy_generators_are_sources() -> None:
    drawn = BatchNoise([np.random.default_rng(7), 1]).normal((4, 4))
    np.testing.assert_array_equal(drawn[0], np.random.default_rng(7).standard_normal((4, 4)).astype(np.float32))
    np.testing.assert_array_equal(drawn[1], NoiseStream(1).normal((4, 4)))
    assert drawn.dtype == np.float32
