"""How far runs that nobody watched may go beyond those that were: as far as one of these went beyond the rest."""

from typing import Final

import numpy as np

from .rounded import Floats

_CHANNELS: Final = 0.9
"""The share of channels for which a run counts as beyond the others; the rest hardly did anything elsewhere."""


def beyond(lows: Floats, highs: Floats) -> np.float32:
    """The most that one of the runs `[runs, channels]` went beyond all others; 1 if none did."""
    sizes, found = np.maximum(np.abs(lows), np.abs(highs)), [1.0]
    for run, size in enumerate(sizes):
        others = np.delete(sizes, run, 0).max(0, initial=0)
        known = others > 0
        if known.any():
            found.append(float(np.quantile(size[known] / others[known], _CHANNELS)))
    return np.float32(max(found))
