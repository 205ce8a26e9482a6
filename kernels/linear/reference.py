"""The truth for the 8-bit linears, in float64 and plain torch; and the same on a CPU in float32."""

import torch
from torch import Tensor

from ..quantize.reference import narrowed_ref


def integer_product(x: Tensor, weight: Tensor) -> Tensor:
    """`x (…, k) @ weight (n, k)^T` of 8-bit operands, float64; exact for int8."""
    return x.double() @ weight.double().mT


def linear_w8a8_ref(
    x: Tensor,
    x_scale: Tensor | None,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """What `linear_w8a8` approximates, float64."""
    value = integer_product(x, weight) * weight_scale.double()
    if x_scale is not None:
        value = value * x_scale.double()[..., None]
    if bias is not None:
        value = value + bias.double()
    if residual is not None:
        value = value + residual.double()
    return value


def geglu_linear_w8a8_ref(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None = None,
    inverse: Tensor | None = None,
) -> Tensor:
    """What `geglu_linear_w8a8` approximates, float64."""
    value, gate = linear_w8a8_ref(x, x_scale, weight, weight_scale, bias).chunk(2, -1)
    return narrowed_ref(value * torch.nn.functional.gelu(gate), inverse)
