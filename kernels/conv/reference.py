"""The truth for the 8-bit convolution, in float64 and plain torch."""

import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate


def integer_convolution(x: Tensor, weight: Tensor, *, stride: int = 1, upsample: bool = False) -> Tensor:
    """Bare sums of x (b, h, w, c) with weight (n, kh, kw, c), float64 (b, ho, wo, n); exact for int8."""
    picture = x.double().permute(0, 3, 1, 2)
    if upsample:
        picture = interpolate(picture, scale_factor=2, mode="nearest")
    return conv2d(
        picture, weight.double().permute(0, 3, 1, 2), stride=stride, padding=weight.shape[1] // 2
    ).permute(0, 2, 3, 1)  # fmt: skip


def conv_w8a8_ref(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None = None,
    time: Tensor | None = None,
    residual: Tensor | None = None,
    x2: Tensor | None = None,
    x2_scale: Tensor | None = None,
    stride: int = 1,
    upsample: bool = False,
) -> Tensor:
    """What `conv_w8a8` approximates, float64."""
    c = x.shape[-1]
    value = integer_convolution(x, weight[..., :c], stride=stride, upsample=upsample) * _of_pictures(x_scale)
    if x2 is not None and x2_scale is not None:
        more = integer_convolution(x2, weight[..., c:], stride=stride, upsample=upsample)
        value = value + more * _of_pictures(x2_scale)
    value = value * weight_scale.double()
    if bias is not None:
        value = value + bias.double()
    if time is not None:
        value = value + time.double()[:, None, None, :]
    if residual is not None:
        value = value + residual.double()
    return value


def _of_pictures(scale: Tensor) -> Tensor:
    return scale.to(torch.float64)[:, None, None, None]
