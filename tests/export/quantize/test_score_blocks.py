"""Queries and keys in 8 bits as the kernels round them; and when sums in halves would not hold the values."""

import numpy as np
import pytest
import torch

from pocketxl.export.quantize.score_blocks import LARGEST_VALUE, ScoreBlocks
from pocketxl.kernels.attention.reference import dequantized

HEADS, WIDTH = 2, 128


@pytest.mark.parametrize("tokens", [1, 64, 70, 200])
def test_they_are_rounded_as_the_kernels_do_it(tokens: int) -> None:
    random = np.random.default_rng(tokens)
    queries, keys = (random.standard_normal((tokens, WIDTH), np.float32) for _ in range(2))
    keys[:, 7] += 40  # the same for all: softmax does not see it
    keys[tokens // 2] *= 9  # coarser steps for its 64
    made = ScoreBlocks(heads=HEADS, values=1.0).rounded(queries, keys)
    theirs = dequantized(torch.from_numpy(queries)[None], torch.from_numpy(keys)[None], HEADS)
    for own, other in zip(made, theirs, strict=True):
        step = np.abs(own).max() / 127
        assert np.abs(own - other[0].numpy()).max() <= step, "a sum in another order may round the other way"
        assert np.mean(np.abs(own - other[0].numpy()) > step / 2) < 1e-3


def test_zeros_stay_zeros() -> None:
    for part in ScoreBlocks(heads=HEADS, values=0.0).rounded(*np.zeros((2, 5, WIDTH), np.float32)):
        assert not part.any()


def test_values_that_sums_in_halves_cannot_hold() -> None:
    assert np.finfo(np.float16).max >= 64 * 2.0**-4 * LARGEST_VALUE
    assert ScoreBlocks(heads=HEADS, values=LARGEST_VALUE).fits
    assert not ScoreBlocks(heads=HEADS, values=LARGEST_VALUE + 1).fits
