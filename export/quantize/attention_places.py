"""Self-attention in 8-bit floats: what is rounded, in which steps, and where there are enough tokens for it."""

import math
import re
from collections.abc import Iterable
from typing import Final

from .query_keys import QueryKeys
from .score_blocks import ScoreBlocks

SHARE_STEP: Final = 2.0**-8
"""Of the shares that softmax gives, which are 1 at most: what is below 1/2²⁶ of everything is left out."""
PROJECTIONS: Final = ("to_q", "to_k", "to_v")

FEWEST_TOKENS: Final = 32
"""That attend to each other: for fewer TensorRT for RTX has no kernel with 8-bit floats (31 refused, 32 taken)."""
_OF_NATIVE: Final = 0.75
"""Of the side of a model's native picture: as small a one at least is to have enough tokens."""

Steps = tuple[float, float, float]
"""Of queries, keys and values."""

Numbers = Steps | QueryKeys | ScoreBlocks
"""What there is to know of an attention in 8 bits."""


def least_side(names: Iterable[str], levels: int) -> int:
    """The side of the smallest square latents with which each of these attentions of a U-Net has enough tokens."""
    across = math.isqrt(FEWEST_TOKENS - 1) + 1
    return max((across * _downsampling(name, levels) for name in names), default=1)


def has_tokens(name: str, levels: int, sample_size: int) -> bool:
    """Whether an attention has enough of them in pictures somewhat smaller than a model's own (side of latents)."""
    return least_side([name], levels) <= _OF_NATIVE * sample_size


def _downsampling(name: str, levels: int) -> int:
    """How many latents in a row are one token there."""
    block = re.match(r"(down|up)_blocks\.(\d+)\.", name)
    if block is None:
        return int(2 ** (levels - 1))
    level = int(block[2])
    return int(2 ** (level if block[1] == "down" else levels - 1 - level))
