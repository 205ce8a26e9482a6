"""Self-attention whose queries, keys, values and shares are e4m3: where it may be, its steps, and how far it is off."""

import math
import re
from collections.abc import Iterable
from typing import Final

import torch
from torch import Tensor

from .calibration import Calibration
from .grid import E4M3, LARGEST_E4M3
from .rounded import Floats
from .signed_ranges import float8_step

SHARE_STEP: Final = 2.0**-8
"""Of the shares that softmax gives, which are 1 at most: what is below 1/2²⁶ of everything is left out."""
PROJECTIONS: Final = ("to_q", "to_k", "to_v")

FEWEST_TOKENS: Final = 32
"""That attend to each other: for fewer TensorRT for RTX has no kernel with 8-bit floats (31 refused, 32 taken)."""
_OF_NATIVE: Final = 0.75
"""Of the side of a model's native picture: as small a one at least is to have enough tokens."""

Steps = tuple[float, float, float]
"""Of queries, keys and values."""


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


def attention_steps(name: str, seen: Calibration) -> Steps | None:
    """Those of queries, keys and values of the attention of that name; None if it was not watched."""
    found = [seen.layers.get(f"{name}.{part}") for part in PROJECTIONS]
    steps = [float8_step(float(layer.output_size.max(initial=0))) for layer in found if layer is not None]
    return (steps[0], steps[1], steps[2]) if len(steps) == len(PROJECTIONS) else None


def attention_error(weights: list[Floats], inputs: Floats, heads: int, steps: Steps) -> float:
    """Relative squared error of attention among tokens `[rows, in]`, with weights `[out, in]` of q, k and v.

    The tokens are those that were sampled, of several pictures: fewer than there are in one, and as different.
    """
    x = torch.from_numpy(inputs)
    parts = [x @ torch.from_numpy(weight).T for weight in weights]
    exact = _attention(*(_heads(part, heads) for part in parts), rounding=False)
    query, key, value = (_heads(_e4m3(part, step), heads) for part, step in zip(parts, steps, strict=True))
    reference = float(exact.square().sum(dtype=torch.float64))
    off = _attention(query, key, value, rounding=True).sub_(exact)
    return float(off.square().sum(dtype=torch.float64)) / reference if reference else 0.0


def _attention(query: Tensor, key: Tensor, value: Tensor, *, rounding: bool) -> Tensor:
    shares = torch.softmax(query @ key.mT / math.sqrt(query.shape[-1]), -1)
    return (_e4m3(shares, SHARE_STEP) if rounding else shares) @ value


def _heads(x: Tensor, heads: int) -> Tensor:
    return x.view(len(x), heads, -1).transpose(0, 1)


def _e4m3(x: Tensor, step: float) -> Tensor:
    return (x / step).clamp(-LARGEST_E4M3, LARGEST_E4M3).to(E4M3).float() * step
