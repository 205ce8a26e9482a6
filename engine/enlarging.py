"""From the first pass of a call to the second, larger one: latents or pictures become larger."""

import numpy as np

from .pictures_in.fit import fitted
from .pictures_in.input import Array
from .vae import to_uint8


def larger_latents(latents: Array, height: int, width: int) -> Array:
    """(n, C, h, w) → (n, C, height, width) between neighbours: torch's `interpolate` with mode bilinear."""
    down = _between(latents.shape[2], height)
    right = _between(latents.shape[3], width)
    return np.asarray(np.einsum("ah,nchw,bw->ncab", down, latents, right, optimize=True), np.float32)


def larger_pictures(pictures: np.ndarray, height: int, width: int) -> tuple[np.ndarray, ...]:
    """(n, H, W, 3) in [0, 1] → uint8 pictures of that size, by Pillow's Lanczos filter."""
    return tuple(fitted(to_uint8(picture), height, width) for picture in pictures)


def _between(before: int, after: int) -> Array:
    """(after, before): how much of each old pixel a new one has; pixels are areas, and the edges' go on outwards."""
    at = ((np.arange(after) + 0.5) * (before / after) - 0.5).clip(0, before - 1)
    low = np.floor(at).astype(int)
    share = at - low
    weights = np.zeros((after, before))
    rows = np.arange(after)
    weights[rows, low] += 1 - share
    weights[rows, np.minimum(low + 1, before - 1)] += share
    return weights.astype(np.float32)
