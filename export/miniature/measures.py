"""Measures on pictures: plain arithmetic on arrays, so that everyone can check what a figure means."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from .captions import COLOURS

Pictures = npt.NDArray[np.float32]  # (height, width, 3) in [0, 1], or a batch of them

FRAME: Final = 4  # width in pixels of the outer frame that counts as background
SHIFTS: Final = (-1, 0, 1)  # at 32 pixels: a picture may sit up to a thirty-second of its side off
FOREGROUND: Final = 0.2  # distance from the background colour, of sqrt(3), from which a pixel belongs to an object


def psnr_db(pictures: Pictures, references: Pictures) -> npt.NDArray[np.float64]:
    """Peak signal-to-noise ratio of each picture of a batch against its reference, in dB."""
    error = np.square(pictures.astype(np.float64) - references).mean((1, 2, 3))
    return np.asarray(-10 * np.log10(np.maximum(error, 1e-10)))


def background(picture: Pictures) -> npt.NDArray[np.float64]:
    """The median colour of the outer frame."""
    frame = np.ones(picture.shape[:2], bool)
    frame[FRAME:-FRAME, FRAME:-FRAME] = False
    return np.asarray(np.median(picture[frame].astype(np.float64), 0))


def nearest_colour(colour: npt.NDArray[np.float64]) -> str:
    """The named background colour that is nearest in sRGB."""
    return min(COLOURS, key=lambda name: float(np.square(np.array(COLOURS[name]) / 255 - colour).sum()))


def reduce(picture: Pictures, side: int = 32) -> Pictures:
    """Box-filter the height to `side` pixels, the width with it."""
    factor = picture.shape[0] // side
    height, width = picture.shape[0] // factor * factor, picture.shape[1] // factor * factor
    blocks = picture[:height, :width].reshape(height // factor, factor, width // factor, factor, 3)
    return np.asarray(blocks.mean((1, 3)), np.float32)


def distances(picture: Pictures, candidates: Pictures) -> npt.NDArray[np.float64]:
    """Squared distance of a reduced picture to each reduced candidate, the least over shifts of one pixel."""
    inner = candidates[:, 1:-1, 1:-1]
    height, width = picture.shape[:2]
    best = np.full(len(candidates), np.inf)
    for dy in SHIFTS:
        for dx in SHIFTS:
            moved = picture[1 + dy : height - 1 + dy, 1 + dx : width - 1 + dx]
            best = np.minimum(best, np.square(inner.astype(np.float64) - moved).mean((1, 2, 3)))
    return best


def sharpness(picture: Pictures) -> float:
    """Mean absolute Laplacian of the grey picture: falls when it is blurred."""
    grey = picture.astype(np.float64).mean(-1)
    laplacian = 4 * grey[1:-1, 1:-1] - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
    return float(np.abs(laplacian).mean())


def foreground(picture: Pictures, colour: Sequence[float]) -> npt.NDArray[np.bool_]:
    """Which pixels belong to an object on a background of this colour (sRGB in [0, 1])."""
    return np.asarray(np.sqrt(np.square(picture.astype(np.float64) - np.asarray(colour)).sum(-1)) > FOREGROUND)


def centre(mask: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Centre of a mask's bounding box (row, column) in pixels; nan for an empty mask."""
    rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    if not len(rows):
        return float("nan"), float("nan")
    return (rows[0] + rows[-1]) / 2, (columns[0] + columns[-1]) / 2


def touches_edge(mask: npt.NDArray[np.bool_]) -> bool:
    """Whether an object reaches the edge of the picture, so that it is not whole."""
    return bool(mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())
