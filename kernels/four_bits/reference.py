"""The truth for linears on 4-bit weights and 8-bit activations: float64, plain torch, on what is stored."""

from torch import Tensor, float64
from torch.nn.functional import gelu

from ..weight_only.pack import unpack_w4


def linear_w4a8_ref(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """What `linear_w4a8` approximates, float64."""
    value = (x.double() @ unpack_w4(weight, weight_scale, float64).mT) * x_scale.double()[..., None]
    if bias is not None:
        value = value + bias.double()
    return value if residual is None else value + residual.double()


def geglu_linear_w4a8_ref(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None = None,
    inverse: Tensor | None = None,
) -> Tensor:
    """What `geglu_linear_w4a8` approximates, float64; with `inverse` whole numbers."""
    value, gate = linear_w4a8_ref(x, x_scale, weight, weight_scale, bias).chunk(2, -1)
    gated = value * gelu(gate)
    return gated if inverse is None else (gated * inverse.double()).round().clamp(-127, 127)
