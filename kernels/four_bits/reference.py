"""The truth for linears on 4-bit weights and 8-bit activations: float64, plain torch, on what is stored."""

from torch import Tensor, float64

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
