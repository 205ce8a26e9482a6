"""The truth for the normalizations, in float64 and plain torch."""

import torch
from torch import Tensor
from torch.nn import functional

from ..quantize.reference import quantize_ref


def layer_norm_ref(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """LayerNorm over the last dimension, float64."""
    return functional.layer_norm(x.double(), x.shape[-1:], weight.double(), bias.double(), eps)


def layer_norm_quantize_ref(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype = torch.int8
) -> tuple[Tensor, Tensor]:
    """What `layer_norm_quantize` approximates."""
    return quantize_ref(layer_norm_ref(x, weight, bias, eps), (-1,), dtype)


def add_layer_norm_quantize_ref(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype = torch.int8
) -> tuple[Tensor, Tensor, Tensor]:
    """What `add_layer_norm_quantize` approximates; what is normalized is the sum rounded to the dtype of `x`."""
    total = (x.double() + residual.double()).to(x.dtype)
    return *layer_norm_quantize_ref(total, weight, bias, eps, dtype), total


def group_norm_silu_ref(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool = True, x2: Tensor | None = None
) -> Tensor:
    """What `group_norm_silu` approximates, float64: `x (B, H, W, C)`, and `x2` behind its channels."""
    x = x if x2 is None else torch.cat([x, x2], -1)
    value = functional.group_norm(x.double().movedim(-1, 1), groups, weight.double(), bias.double(), eps)
    return (functional.silu(value) if silu else value).movedim(1, -1).contiguous()


def group_norm_silu_quantize_ref(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    eps: float,
    silu: bool = True,
    dtype: torch.dtype = torch.int8,
    x2: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """What `group_norm_silu_quantize` approximates, with the scale from the largest magnitude itself."""
    return quantize_ref(group_norm_silu_ref(x, weight, bias, groups, eps, silu, x2), (1, 2, 3), dtype)
