"""Static 8-bit ranges by the least squared error over samples, instead of by extremes."""

from typing import Final

import numpy as np

from .rounded import Floats

# Shares of the extremes that are tried for either end of a range.
_SHARES: Final = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)


def hold_static(low: Floats, high: Floats, *, importance: Floats | None = None) -> tuple[Floats, int]:
    """Scale `[channels]` and the zero point that all channels share, for uint8 = round(x / scale) + zero.

    Holds everything between `low` and `high` `[channels]`, with the zero point with which that costs the least; 0 is
    exact. `importance` `[channels]` weighs the channels' squared errors against each other: what multiplies them later.
    """
    low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    weight = np.ones_like(low) if importance is None else importance
    zero = min(range(256), key=lambda at: float((np.square(_holding(low, high, at), dtype=np.float64) * weight).sum()))
    scale = _holding(low, high, zero)
    # A channel of zeros alone: any scale is exact; the smallest of the others makes the least of its folded weights.
    used = scale > 0
    return np.where(used, scale, scale[used].min() if used.any() else 1.0).astype(np.float32), zero


def fit_static(samples: Floats, low: Floats, high: Floats, *, importance: Floats | None = None) -> tuple[Floats, int]:
    """The same, but each channel's scale is the share of that of its extremes that rounds its samples best.

    `samples` `[rows, channels]` lie between `low` and `high`. Raises `ValueError` for samples of another width.
    """
    if samples.ndim != 2 or not samples.shape[1] == len(low) == len(high):
        raise ValueError(
            f"samples are {samples.shape} for {len(low)} low and {len(high)} high ends; give one a channel"
        )
    extreme, zero = hold_static(low, high, importance=importance)
    best, least = extreme, _channel_errors(samples, extreme, zero)
    for share in _SHARES[1:]:
        tried = extreme * np.float32(share)
        error = _channel_errors(samples, tried, zero)
        best, least = np.where(error < least, tried, best), np.minimum(error, least)
    return best.astype(np.float32), zero


def _holding(low: Floats, high: Floats, zero: int) -> Floats:
    """The least scale of each channel that holds its extremes (infinite where none does)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        above = np.where(high > 0, high / np.float32(255 - zero), 0.0)
        below = np.where(low < 0, -low / np.float32(zero), 0.0)
    scale: Floats = np.maximum(above, below).astype(np.float32)
    return scale


def _channel_errors(samples: Floats, scale: Floats, zero: int) -> Floats:
    divisor = np.where(scale > 0, scale, np.float32(1.0))
    steps = np.clip(np.rint(samples / divisor), -zero, 255 - zero)
    errors: Floats = np.square(steps * scale - samples).sum(0)
    return errors
