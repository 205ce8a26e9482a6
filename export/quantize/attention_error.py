"""How far self-attention in 8 bits, e4m3 or int8, is off."""

import math

import torch
from torch import Tensor

from .attention_places import SHARE_STEP, Numbers
from .grid import E4M3, LARGEST_E4M3
from .query_keys import QueryKeys
from .rounded import Floats
from .score_blocks import ScoreBlocks


def attention_error(weights: list[Floats], inputs: Floats, heads: int, numbers: Numbers) -> float:
    """Relative squared error of attention among tokens `[rows, in]`, with weights `[out, in]` of q, k and v.

    The tokens are those that were sampled, of several pictures: fewer than there are in one, and as different. Infinite
    where values are too large for the sums.
    """
    if isinstance(numbers, ScoreBlocks) and not numbers.fits:
        return math.inf
    x = torch.from_numpy(inputs)
    parts = [x @ torch.from_numpy(weight).T for weight in weights]
    exact = _attention(*(_heads(part, heads) for part in parts), rounding=False)
    if isinstance(numbers, QueryKeys | ScoreBlocks):
        rounded = [torch.from_numpy(part) for part in numbers.rounded(parts[0].numpy(), parts[1].numpy())]
        rounded.append(parts[2])
    else:
        rounded = [_e4m3(part, step) for part, step in zip(parts, numbers, strict=True)]
    query, key, value = (_heads(part, heads) for part in rounded)
    reference = float(exact.square().sum(dtype=torch.float64))
    off = _attention(query, key, value, rounding=isinstance(numbers, tuple)).sub_(exact)
    return float(off.square().sum(dtype=torch.float64)) / reference if reference else 0.0


def _attention(query: Tensor, key: Tensor, value: Tensor, *, rounding: bool) -> Tensor:
    shares = torch.softmax(query @ key.mT / math.sqrt(query.shape[-1]), -1)
    return (_e4m3(shares, SHARE_STEP) if rounding else shares) @ value


def _heads(x: Tensor, heads: int) -> Tensor:
    return x.view(len(x), heads, -1).transpose(0, 1)


def _e4m3(x: Tensor, step: float) -> Tensor:
    return (x / step).clamp(-LARGEST_E4M3, LARGEST_E4M3).to(E4M3).float() * step
