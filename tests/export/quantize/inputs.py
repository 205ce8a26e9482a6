"""Weights and sampled inputs as layers have them: independent, correlated, with outlier columns, heavy-tailed."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def normal(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def heavy(*shape: int, seed: int = 0) -> Floats:
    """Student's t, 3 degrees of freedom."""
    return np.random.default_rng(seed).standard_t(3, shape).astype(np.float32)


def correlated(rows: int, width: int, *, seed: int) -> Floats:
    """Rows that lie mostly in a quarter as many directions as columns, whose power falls with their number."""
    directions = width // 4
    power = 1 / np.arange(1, directions + 1, dtype=np.float32)
    mix = normal(directions, width, seed=99) * np.sqrt(power / power.sum(), dtype=np.float32)[:, None]
    rows_of: Floats = normal(rows, directions, seed=seed) @ mix + np.float32(0.3) * normal(
        rows, width, seed=seed + 1000
    )
    return rows_of


def with_outliers(inputs: Floats) -> Floats:
    """One column in a hundred thirty times as large."""
    larger = inputs.copy()
    larger[:, 7::100] *= 30
    return larger


def upsampled(rows: int, channels: int, *, seed: int) -> Floats:
    """Patches 3 × 3 of noise that was upsampled to its nearest neighbours, `[rows, channels · 9]`."""
    random = np.random.default_rng(seed)
    pixels = random.standard_normal((rows, channels, 3, 3), np.float32).repeat(2, 2).repeat(2, 3)
    found = np.empty((rows, channels, 3, 3), np.float32)
    for row, (down, right) in enumerate(random.integers(0, 2, (rows, 2))):
        found[row] = pixels[row, :, down : down + 3, right : right + 3]
    return found.reshape(rows, -1)


def product_error(weight: Floats, kept: Floats, inputs: Floats) -> float:
    """Relative error (L2) of `inputs @ weight.T`."""
    return float(np.linalg.norm(inputs @ (kept - weight).T) / np.linalg.norm(inputs @ weight.T))
