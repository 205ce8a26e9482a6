"""The truth for the 8-bit convolution, in float64 and plain torch."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate

from .plan import seen_size


def integer_convolution(x: Tensor, weight: Tensor, *, stride: int = 1, seen: tuple[int, int] | None = None) -> Tensor:
    """Bare sums of x (b, h, w, c) with weight (n, kh, kw, c), float64 (b, ho, wo, n); exact for int8.

    `seen`: height and width to enlarge x to, by nearest neighbours.
    """
    picture = x.double().permute(0, 3, 1, 2)
    if seen is not None:
        picture = interpolate(picture, size=seen, mode="nearest")
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
    upsample_to: Sequence[int] | None = None,
) -> Tensor:
    """What `conv_w8a8` approximates, float64."""
    c = x.shape[-1]
    seen = seen_size(x.shape[1], x.shape[2], upsample_to)
    value = integer_convolution(x, weight[..., :c], stride=stride, seen=seen) * _of_pictures(x_scale)
    if x2 is not None and x2_scale is not None:
        more = integer_convolution(x2, weight[..., c:], stride=stride, seen=seen)
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
