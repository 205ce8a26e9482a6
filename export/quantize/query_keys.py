"""Queries and keys of self-attention as int8, by one step each; values and shares stay floats.

Scores are sums over a head's channels, so a factor that queries are multiplied with and keys are divided by changes
nothing, nor does a number that is taken off a channel of all keys, as softmax does not see what all scores have in
common. Both are used up: every channel's queries become as large as its keys, which lie around 0. What is left of
rounding are errors of scores that are alike in all heads, as softmax needs them. (SageAttention, Zhang et al., 2024,
takes the mean off each picture's keys.)
"""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from .calibration import LayerStatistics
from .rounded import Floats
from .unseen import beyond

LARGEST: Final = 127
_LEAST: Final = np.float32(1e-3)
"""Of the largest channel: smaller ones count as that large, so that no factor is made of noise."""


@dataclass(frozen=True, eq=False, kw_only=True)
class QueryKeys:
    """How queries and keys `[tokens, heads · width]` are rounded."""

    balance: Floats
    """`[heads · width]`: queries are multiplied with it, keys divided by it."""
    centre: Floats
    """`[heads · width]`: is taken off every key before."""
    query_step: np.float32
    key_step: np.float32

    @classmethod
    def of(cls, queries: LayerStatistics, keys: LayerStatistics) -> Self:
        """With steps that hold what was seen, and as much more as one run has shown beyond all others."""
        low, high = keys.output_range
        centre: Floats = (low + high) * np.float32(0.5)
        reach, size = _lifted(high - centre), _lifted(queries.output_size)
        balance: Floats = np.sqrt(reach / size)
        return cls(
            balance=balance,
            centre=centre,
            query_step=_step(size * balance, beyond(queries.output_lows, queries.output_highs)),
            key_step=_step(reach / balance, beyond(keys.output_lows - centre, keys.output_highs - centre)),
        )

    def rounded(self, queries: Floats, keys: Floats) -> tuple[Floats, Floats]:
        """What is left of them, multiplied and divided as they are in the product."""
        return (
            _nearest(queries * self.balance, self.query_step),
            _nearest((keys - self.centre) / self.balance, self.key_step),
        )


def _lifted(size: Floats) -> Floats:
    """Sizes of channels, none of them far below the largest; 1 where all are 0."""
    largest = size.max(initial=0)
    lifted: Floats = np.maximum(size, _LEAST * largest) if largest > 0 else np.ones_like(size)
    return lifted


def _step(size: Floats, room: np.float32) -> np.float32:
    return np.float32(size.max() * room / LARGEST)


def _nearest(values: Floats, step: np.float32) -> Floats:
    found: Floats = np.rint(values / step).clip(-LARGEST - 1, LARGEST) * step
    return found
