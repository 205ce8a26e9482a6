"""Queries and keys of self-attention as int8, with scales that are found when they are made; values stay floats.

What the kernels do (`kernels.attention`): the mean of a picture's keys is taken off them, which softmax does not see;
queries have a scale for each token of a head, keys one for each 64 tokens.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from ...kernels.attention.plan import KEY_BLOCK
from .rounded import Floats

LARGEST: Final = 127
LEAST: Final = np.float32(1e-15)
"""What a token or block of zeros counts as."""
LARGEST_VALUE: Final = 16_376.0
"""Sums in halves hold 64 values that large (`attention_int8`)."""


@dataclass(frozen=True, kw_only=True)
class ScoreBlocks:
    """How queries and keys `[tokens, heads · width]` of one picture are rounded."""

    heads: int
    values: float
    """The largest magnitude of a value that was seen, and as much more as one run has shown beyond all others."""

    @property
    def fits(self) -> bool:
        """Whether sums in halves hold the values."""
        return self.values <= LARGEST_VALUE

    def rounded(self, queries: Floats, keys: Floats) -> tuple[Floats, Floats]:
        """What is left of them; of keys less their mean."""
        tokens = len(keys)
        query = queries.reshape(len(queries), self.heads, -1)
        key = np.pad(keys - keys.mean(0), ((0, -tokens % KEY_BLOCK), (0, 0)))
        blocks = key.reshape(-1, KEY_BLOCK, self.heads, key.shape[1] // self.heads)
        key = _nearest(blocks, (1, 3)).reshape(key.shape)[:tokens]
        return _nearest(query, (2,)).reshape(queries.shape), key


def _nearest(values: Floats, axes: tuple[int, ...]) -> Floats:
    step = np.maximum(np.abs(values).max(axes, keepdims=True), LEAST) / np.float32(LARGEST)
    found: Floats = np.rint(values / step) * step
    return found
