"""The weight-only layers as torch ops: eager, compiled, exported, in CUDA graphs, and on a CPU."""

import torch
from torch import Tensor

from ..errors import require
from ..execute import architecture_of, dtype_name, execute, runs_kernels
from .launch import output_size, plan_conv_w4, plan_conv_w8, plan_linear_w4, plan_linear_w8
from .reference import conv_w4_ref, conv_w8_ref, linear_w4_ref, linear_w8_ref


@torch.library.triton_op("pocketxl::linear_w4", mutates_args={})
def linear_w4(
    x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None = None, residual: Tensor | None = None
) -> Tensor:
    """A linear layer on 4-bit weights: ``x @ (q * scale)^T + bias + residual``.

    Weights become the dtype of `x` in registers, rounded once; sums and the epilogue are float32, rounded once.

    Args:
        x: (…, k), float16 or bfloat16.
        weight: (n, k/2), uint8, from `pack_w4`.
        scale: (n, k/group), float16; groups of 32, 64 or 128.
        bias: (n,), the dtype of `x`.
        residual: (…, n), the dtype of `x`, added at the end.

    Returns:
        (…, n), the dtype of `x`. A NaN in x or in a scale gives NaN in its row or column.

    Raises:
        UnsupportedShapeError: k is no multiple of 64 and of the group, operands do not fit together, or x has another
            dtype.
    """
    k, n = x.shape[-1], weight.shape[0]
    _check_weight("linear_w4", x, weight, scale, (n, k // 2), (n, scale.shape[-1]))
    if not runs_kernels(x):
        return linear_w4_ref(x, weight, scale, bias, residual).to(x.dtype)
    inputs = _inputs(x.reshape(-1, k), weight, scale, bias, None, None if residual is None else residual.reshape(-1, n))
    plan = plan_linear_w4(
        m=inputs["x"].shape[0],
        n=n,
        k=k,
        group=k // scale.shape[-1],
        arch=architecture_of(x),
        dtype=dtype_name(x.dtype),
        bias=bias is not None,
        residual=residual is not None,
    )
    return execute(plan, inputs)["out"].reshape(*x.shape[:-1], n)


@torch.library.triton_op("pocketxl::linear_w8", mutates_args={})
def linear_w8(
    x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None = None, residual: Tensor | None = None
) -> Tensor:
    """A linear layer on 8-bit weights and 16-bit activations: ``(x @ q^T) * scale + bias + residual``.

    Args:
        x: (…, k), float16 or bfloat16.
        weight: (n, k), int8, from `pack_w8`.
        scale: (n,), float32: of each output channel.
        bias: (n,), the dtype of `x`.
        residual: (…, n), the dtype of `x`, added at the end.

    Returns:
        (…, n), the dtype of `x`. A NaN in x or in a scale gives NaN in its row or column.

    Raises:
        UnsupportedShapeError: k is no multiple of 64, operands do not fit together, or x has another dtype.
    """
    k, n = x.shape[-1], weight.shape[0]
    _check_weight("linear_w8", x, weight, scale, (n, k), (n,))
    if not runs_kernels(x):
        return linear_w8_ref(x, weight, scale, bias, residual).to(x.dtype)
    inputs = _inputs(x.reshape(-1, k), weight, scale, bias, None, None if residual is None else residual.reshape(-1, n))
    plan = plan_linear_w8(
        m=inputs["x"].shape[0],
        n=n,
        k=k,
        arch=architecture_of(x),
        dtype=dtype_name(x.dtype),
        bias=bias is not None,
        residual=residual is not None,
    )
    return execute(plan, inputs)["out"].reshape(*x.shape[:-1], n)


@torch.library.triton_op("pocketxl::conv_w4", mutates_args={})
def conv_w4(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    time: Tensor | None = None,
    residual: Tensor | None = None,
    stride: int = 1,
    upsample_to: list[int] | None = None,
) -> Tensor:
    """A 3×3 (padding 1) or 1×1 convolution on 4-bit weights: ``conv(x, q * scale) + bias + time + residual``.

    Args:
        x: (b, h, w, c), contiguous; float16 or bfloat16.
        weight: (n, k, k, c/2), uint8, from `pack_w4`.
        scale: (n, k, k, c/group), float16; groups of 32, 64 or 128.
        bias: (n,), the dtype of `x`.
        time: (b, n), the dtype of `x`, added to every pixel.
        residual: the shape and dtype of the output, added at the end.
        stride: 1, or 2 for 3×3.
        upsample_to: height and width that x is seen at, nearest neighbour: each twice that of x or one less.

    Returns:
        (b, ho, wo, n), the dtype of `x`; ho and wo as of x, halved rounding up, or `upsample_to`.

    Raises:
        UnsupportedShapeError: c is no multiple of 64 and of the group (conv_in: keep it float), operands do not fit
            together, no such filter, stride or size, or x has another dtype.
    """
    b, h, w, c = x.shape
    n, kernel = weight.shape[:2]
    _check_weight("conv_w4", x, weight, scale, (n, kernel, kernel, c // 2), (n, kernel, kernel, scale.shape[-1]))
    grown = None if upsample_to is None else (upsample_to[0], upsample_to[1])
    output_size("conv_w4", h, w, kernel, stride, grown)
    if not runs_kernels(x):
        return conv_w4_ref(x, weight, scale, bias, time, residual, stride, upsample_to).to(x.dtype)
    plan = plan_conv_w4(
        b=b,
        h=h,
        w=w,
        c=c,
        n=n,
        kernel=kernel,
        stride=stride,
        upsample_to=grown,
        group=c // scale.shape[-1],
        arch=architecture_of(x),
        dtype=dtype_name(x.dtype),
        bias=bias is not None,
        time=time is not None,
        residual=residual is not None,
    )
    return execute(plan, _inputs(x, weight, scale, bias, time, residual))["out"]


@torch.library.triton_op("pocketxl::conv_w8", mutates_args={})
def conv_w8(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    time: Tensor | None = None,
    residual: Tensor | None = None,
    stride: int = 1,
    upsample_to: list[int] | None = None,
) -> Tensor:
    """`conv_w4` on 8-bit weights.

    Args:
        x: (b, h, w, c), contiguous; float16 or bfloat16.
        weight: (n, k, k, c), int8, from `pack_w8`.
        scale: (n,), float32: of each output channel.
        bias: (n,), the dtype of `x`.
        time: (b, n), the dtype of `x`, added to every pixel.
        residual: the shape and dtype of the output, added at the end.
        stride: 1, or 2 for 3×3.
        upsample_to: height and width that x is seen at, nearest neighbour: each twice that of x or one less.

    Returns:
        (b, ho, wo, n), the dtype of `x`.

    Raises:
        UnsupportedShapeError: as `conv_w4`.
    """
    b, h, w, c = x.shape
    n, kernel = weight.shape[:2]
    _check_weight("conv_w8", x, weight, scale, (n, kernel, kernel, c), (n,))
    grown = None if upsample_to is None else (upsample_to[0], upsample_to[1])
    output_size("conv_w8", h, w, kernel, stride, grown)
    if not runs_kernels(x):
        return conv_w8_ref(x, weight, scale, bias, time, residual, stride, upsample_to).to(x.dtype)
    plan = plan_conv_w8(
        b=b,
        h=h,
        w=w,
        c=c,
        n=n,
        kernel=kernel,
        stride=stride,
        upsample_to=grown,
        arch=architecture_of(x),
        dtype=dtype_name(x.dtype),
        bias=bias is not None,
        time=time is not None,
        residual=residual is not None,
    )
    return execute(plan, _inputs(x, weight, scale, bias, time, residual))["out"]


@linear_w4.register_fake  # type: ignore[untyped-decorator]
@linear_w8.register_fake  # type: ignore[untyped-decorator]
def _(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None = None, residual: Tensor | None = None) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


@conv_w4.register_fake  # type: ignore[untyped-decorator]
@conv_w8.register_fake  # type: ignore[untyped-decorator]
def _(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    time: Tensor | None = None,
    residual: Tensor | None = None,
    stride: int = 1,
    upsample_to: list[int] | None = None,
) -> Tensor:
    height, width = upsample_to or ((side + stride - 1) // stride for side in x.shape[1:3])
    return x.new_empty((x.shape[0], height, width, weight.shape[0]))


def _inputs(
    x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None, time: Tensor | None, residual: Tensor | None
) -> dict[str, Tensor]:
    given = {"x": x, "weight": weight, "scale": scale, "bias": bias, "time": time, "residual": residual}
    return {name: tensor.contiguous() for name, tensor in given.items() if tensor is not None}


def _check_weight(
    op: str, x: Tensor, weight: Tensor, scale: Tensor, weight_shape: tuple[int, ...], scale_shape: tuple[int, ...]
) -> None:
    shape = {name: tuple(tensor.shape) for name, tensor in (("x", x), ("weight", weight), ("scale", scale))}
    fits = weight.shape == weight_shape and scale.shape == scale_shape and weight.dim() == len(weight_shape)
    require(fits, op, shape, f"for this x the weight is {weight_shape} and its scale {scale_shape}")
