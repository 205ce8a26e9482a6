"""The truth for the weight-only layers: float64, plain torch, on the weights that are stored."""

import torch.nn.functional as F
from torch import Tensor, float64

from .pack import unpack_w4


def unpack_w8(weight: Tensor, scale: Tensor) -> Tensor:
    """The weights that `pack_w8` stored, float64."""
    return weight.double() * scale.double().view(-1, *[1] * (weight.dim() - 1))


def linear_w4_ref(
    x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None = None, residual: Tensor | None = None
) -> Tensor:
    """What `linear_w4` approximates, float64."""
    return _linear(x, unpack_w4(weight, scale, float64), bias, residual)


def linear_w8_ref(
    x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None = None, residual: Tensor | None = None
) -> Tensor:
    """What `linear_w8` approximates, float64."""
    return _linear(x, unpack_w8(weight, scale), bias, residual)


def conv_w4_ref(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    time: Tensor | None = None,
    residual: Tensor | None = None,
    stride: int = 1,
    upsample_to: list[int] | None = None,
) -> Tensor:
    """What `conv_w4` approximates, float64."""
    return convolve(x.double(), unpack_w4(weight, scale, float64), bias, time, residual, stride, upsample_to)


def conv_w8_ref(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    time: Tensor | None = None,
    residual: Tensor | None = None,
    stride: int = 1,
    upsample_to: list[int] | None = None,
) -> Tensor:
    """What `conv_w8` approximates, float64."""
    return convolve(x.double(), unpack_w8(weight, scale), bias, time, residual, stride, upsample_to)


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    time: Tensor | None,
    residual: Tensor | None,
    stride: int,
    upsample_to: list[int] | None,
) -> Tensor:
    """A convolution of pictures (batch, height, width, c) in the dtype of `x`; `weight` is (n, kh, kw, c)."""
    picture = x.permute(0, 3, 1, 2)
    if upsample_to is not None:
        picture = F.interpolate(picture, size=upsample_to, mode="nearest")
    filters = weight.permute(0, 3, 1, 2)
    added = None if bias is None else bias.to(x.dtype)
    value = F.conv2d(picture, filters, added, stride=stride, padding=weight.shape[1] // 2).permute(0, 2, 3, 1)
    if time is not None:
        value = value + time.to(x.dtype)[:, None, None]
    if residual is not None:
        value = value + residual.to(x.dtype)
    return value.contiguous()


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None) -> Tensor:
    value = F.linear(x.double(), weight, None if bias is None else bias.double())
    return value if residual is None else value + residual.double()
