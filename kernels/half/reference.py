"""The truth for the float16 linear and convolution, in float64 and plain torch."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ..conv.plan import seen_size
from ..conv.reference import integer_convolution


def activation_ref(value: Tensor, activation: str | None) -> Tensor:
    """What stands behind a linear."""
    match activation:
        case "gelu":
            return functional.gelu(value)
        case "quick_gelu":
            return value * torch.sigmoid(1.702 * value)
        case "silu":
            return functional.silu(value)
        case _:
            return value


def linear_f16_ref(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, residual: Tensor | None = None, activation: str | None = None
) -> Tensor:
    """What `linear_f16` approximates, float64."""
    value = functional.linear(x.double(), weight.double(), None if bias is None else bias.double())
    value = activation_ref(value, activation)
    return value if residual is None else value + residual.double()


def conv_f16_ref(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    time: Tensor | None = None,
    residual: Tensor | None = None,
    x2: Tensor | None = None,
    stride: int = 1,
    upsample_to: Sequence[int] | None = None,
) -> Tensor:
    """What `conv_f16` approximates, float64."""
    whole = x if x2 is None else torch.cat([x, x2], -1)
    value = integer_convolution(
        whole, weight, stride=stride, seen=seen_size(x.shape[1], x.shape[2], upsample_to)
    )  # fmt: skip
    if bias is not None:
        value = value + bias.double()
    if time is not None:
        value = value + time.double()[:, None, None, :]
    return value if residual is None else value + residual.double()
