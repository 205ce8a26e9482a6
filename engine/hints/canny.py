"""Edges of a picture, in numpy alone: what OpenCV's `Canny` finds, with its arithmetic (Canny 1986).

ControlNets for edges were trained on that function's pictures: Sobel derivatives of 3×3 pixels, their magnitudes added,
of several colours the strongest, and no blurring before.
"""

import numpy as np
import numpy.typing as npt

LOW, HIGH = 100, 200
"""Least magnitude of an edge that goes on from another, and of one that begins; usual for ControlNets."""
_TAN_22 = 13573
"""tan(22.5°) in units of 1/32768, as OpenCV rounds it."""
_BITS = 15

Integers = npt.NDArray[np.int64]
Marks = npt.NDArray[np.bool_]


def canny(picture: npt.NDArray[np.uint8], low: int = LOW, high: int = HIGH) -> npt.NDArray[np.uint8]:
    """`[height, width, 3]` (or one colour, `[height, width]`) → `[height, width, 3]`, white edges on black.

    `low`, `high`: of a magnitude that is at most 2040.
    """
    across, down = _derivatives(picture if picture.ndim == 3 else picture[..., None])
    size = np.abs(across) + np.abs(down)
    thin = _thinned(size, across, down) & (size > low)
    edges = _joined(thin & (size > high), thin)
    return np.repeat(edges.astype(np.uint8)[..., None] * np.uint8(255), 3, axis=2)


def _derivatives(picture: npt.NDArray[np.uint8]) -> tuple[Integers, Integers]:
    """Sobel's, of the colour where their magnitudes are largest; pixels beyond the border are those at it."""
    x = np.pad(picture.astype(np.int64), ((1, 1), (1, 1), (0, 0)), mode="edge")
    smooth_down = x[:-2] + 2 * x[1:-1] + x[2:]
    smooth_across = x[:, :-2] + 2 * x[:, 1:-1] + x[:, 2:]
    across = smooth_down[:, 2:] - smooth_down[:, :-2]
    down = smooth_across[2:] - smooth_across[:-2]
    strongest = (np.abs(across) + np.abs(down)).argmax(axis=2)[..., None]
    return np.take_along_axis(across, strongest, 2)[..., 0], np.take_along_axis(down, strongest, 2)[..., 0]


def _thinned(size: Integers, across: Integers, down: Integers) -> Marks:
    """Where a magnitude is a maximum along the derivative's direction, of which there are four."""
    padded = np.pad(size, 1)
    height, width = size.shape

    def beside(rows: int, columns: int) -> Integers:
        return padded[1 + rows : 1 + rows + height, 1 + columns : 1 + columns + width]

    x, y = np.abs(across), np.abs(down) << _BITS
    flat, steep = y < x * _TAN_22, y > x * _TAN_22 + (x << (_BITS + 1))
    horizontal = (size > beside(0, -1)) & (size >= beside(0, 1))
    vertical = (size > beside(-1, 0)) & (size >= beside(1, 0))
    falling = (size > beside(-1, -1)) & (size > beside(1, 1))
    rising = (size > beside(-1, 1)) & (size > beside(1, -1))
    diagonal = np.where((across ^ down) < 0, rising, falling)
    return np.where(flat, horizontal, np.where(steep, vertical, diagonal))


def _joined(strong: Marks, all_: Marks) -> Marks:
    """The strong ones and all that hang together with them, over corners too."""
    width = strong.shape[1] + 2
    left = np.pad(all_ & ~strong, 1).ravel()
    found = np.pad(strong, 1).ravel()
    around = np.array([-width - 1, -width, -width + 1, -1, 1, width - 1, width, width + 1])
    frontier = np.flatnonzero(found)
    while len(frontier):
        reached = np.unique((frontier[:, None] + around).ravel())
        frontier = reached[left[reached]]
        left[frontier] = False
        found[frontier] = True
    return found.reshape(-1, width)[1:-1, 1:-1]
