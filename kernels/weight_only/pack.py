"""Weights to 4 bits in groups or to 8 bits per channel, and back; plain torch, no GPU."""

from typing import Final

import torch
from torch import Tensor

from ..errors import KernelError, require
from .plan import GROUPS, RUN

# Largest |w| / scale that is tried for a group: 8 fits the largest weight exactly, less clips it for the sake of the
# others. Half as wide steps gain 0.5 %, a wider range nothing (Gaussian and Laplacian weights).
STEPS: Final = tuple(4.5 + 0.5 * i for i in range(9))
# Weights at a time: what a search step touches then stays in the processor's cache.
_CHUNK: Final = 1 << 18
_LARGEST_SCALE: Final = 65504 / 8


def pack_w4(weight: Tensor, group: int = 64, *, search: bool = True) -> tuple[Tensor, Tensor]:
    """Symmetric 4 bits with a float16 scale for each group along the last axis: `weight ≈ q * scale`, q = -8…7.

    A scale may be negative, so that the side of the range with one step more serves the group's largest weight, as in
    ggml's Q4_0. The search takes, of a few ranges for either sign, each followed by the least-squares scale of its own
    rounding, the one with the smallest squared error. On Gaussian weights and groups of 64 the relative squared error
    is 0.0083 instead of the 0.0116 of `amax` / 7, 29 % less (the negative scale alone: 24 %); on Laplacian weights and
    in groups of 32 or 128 it is 29 to 30 % as well.

    `weight`: (n, …, k) float; a convolution's as (n, kh, kw, cin). `group`: weights that share a scale: 32, 64 or 128.
    `search`: False for `scale = amax / 7`, the usual choice.

    Returns packed (n, …, k/2) uint8, see `plan.py`, and scale (n, …, k/group) float16.

    Raises `UnsupportedShapeError`: k is no multiple of the group and of 64. Raises `KernelError`: a weight is not
    finite, or too large for the format.
    """
    k = weight.shape[-1]
    shape = {"weight": tuple(weight.shape), "group": group}
    require(group in GROUPS, "pack_w4", shape, f"a group is one of {', '.join(map(str, GROUPS))}")
    reason = f"the last axis must be a multiple of the group and of {RUN}; conv_in stays float"
    require(k > 0 and k % RUN == 0 and k % group == 0, "pack_w4", shape, reason)
    _check_finite(weight)
    groups = weight.detach().reshape(-1, group)
    parts = [_quantize(part.float(), search) for part in torch.split(groups, _CHUNK // group)]
    quantized = torch.cat([part for part, _ in parts]).view(weight.shape)
    scale = torch.cat([part for _, part in parts])
    return pack_nibbles((quantized + 8).to(torch.uint8)), scale.view(*weight.shape[:-1], k // group)


def pack_nibbles(numbers: Tensor) -> Tensor:
    """Numbers (…, k) uint8 from 0 to 15 as (…, k/2), in the runs of `plan.py`; k is a multiple of 64."""
    low, high = numbers.reshape(-1, RUN).chunk(2, 1)
    return (low | high << 4).view(*numbers.shape[:-1], numbers.shape[-1] // 2)


def unpack_w4(packed: Tensor, scale: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The weights (…, k) that `pack_w4` stored: q * scale, computed and rounded in `dtype`."""
    k = 2 * packed.shape[-1]
    runs = packed.view(-1, RUN // 2)
    quantized = torch.cat([runs & 15, runs >> 4], 1).to(torch.int8) - 8
    groups = quantized.view(*packed.shape[:-1], scale.shape[-1], -1).to(dtype)
    return (groups * scale.to(dtype)[..., None]).reshape(*packed.shape[:-1], k)


def pack_w8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric 8 bits with a float32 scale for each output channel: `weight ≈ q * scale`, scale = amax / 127.

    `weight`: (n, …, k) float; a convolution's as (n, kh, kw, cin).

    Returns quantized, int8, the shape of `weight`; scale (n,) float32.

    Raises `KernelError`: a weight is not finite.
    """
    _check_finite(weight)
    rows = weight.detach().float().flatten(1)
    scale = rows.abs().amax(1) / 127
    quantized = (rows / _divisor(scale)[:, None]).round_().clamp_(-127, 127)
    return quantized.to(torch.int8).view(weight.shape), scale


def _quantize(groups: Tensor, search: bool) -> tuple[Tensor, Tensor]:
    """q (groups, group) int8 and scale (groups,) float16."""
    extreme = groups.gather(1, groups.abs().argmax(1, keepdim=True))
    if not search:
        scale = _half(extreme.abs() / 7)
        return _round(groups, scale).to(torch.int8), scale[:, 0].half()
    best = torch.full_like(extreme, float("inf"))
    best_scale, best_q = torch.zeros_like(extreme), torch.zeros_like(groups)
    for steps in STEPS:
        for sign in (-1.0, 1.0):
            q = _round(groups, _half(extreme * (sign / steps)))
            squares = q.square().sum(1, keepdim=True)
            scale = _half((groups * q).sum(1, keepdim=True) / torch.where(squares > 0, squares, 1.0))
            error = (groups - q * scale).square_().sum(1, keepdim=True)
            better = error < best
            best = torch.where(better, error, best)
            best_scale = torch.where(better, scale, best_scale)
            best_q = torch.where(better, q, best_q)
    return best_q.to(torch.int8), best_scale[:, 0].half()


def _round(groups: Tensor, scale: Tensor) -> Tensor:
    return (groups / _divisor(scale)).round_().clamp_(-8, 7)


def _divisor(scale: Tensor) -> Tensor:
    """`scale` where one can divide by it; groups of zeros have scale 0, and q = 0 with any divisor."""
    return torch.where(scale == 0, 1.0, scale)


def _half(scale: Tensor) -> Tensor:
    """What is left of a scale in float16, within what eight of it may be there."""
    return scale.clamp(-_LARGEST_SCALE, _LARGEST_SCALE).half().float()


def _check_finite(weight: Tensor) -> None:
    largest = float(weight.detach().abs().amax())
    if not largest <= 65504:
        raise KernelError(f"weights must be finite and at most 65504 to be quantized, the largest is {largest}")
