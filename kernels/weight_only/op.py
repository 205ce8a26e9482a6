"""The weight-only layers as torch ops: eager, compiled, exported, in CUDA graphs, and on a CPU."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from ..errors import require
from ..execute import architecture_of, dtype_name, execute, runs_kernels
from ..launch import LaunchPlan
from .plan import output_size, plan_conv_w4, plan_conv_w8, plan_linear_w4, plan_linear_w8
from .reference import conv_w4_ref, conv_w8_ref, linear_w4_ref, linear_w8_ref


@dataclass(frozen=True, kw_only=True)
class _Format:
    """What the four ops differ in: how many weights lie in a byte, and whether groups or channels have a scale."""

    name: str
    per_byte: int
    grouped: bool
    plan_linear: Callable[..., LaunchPlan]
    plan_conv: Callable[..., LaunchPlan]
    linear_reference: Callable[..., Tensor]
    conv_reference: Callable[..., Tensor]

    def scale_shape(self, filters: tuple[int, ...], scale: Tensor) -> tuple[int, ...]:
        """The shape that the scale of these filters must have; how many groups there are is the scale's to say."""
        return (*filters, scale.shape[-1]) if self.grouped else filters[:1]

    def group(self, k: int, scale: Tensor) -> dict[str, int]:
        """What the plan is told of groups over `k` channels."""
        return {"group": k // scale.shape[-1]} if self.grouped else {}


_W4: Final = _Format(
    name="w4",
    per_byte=2,
    grouped=True,
    plan_linear=plan_linear_w4,
    plan_conv=plan_conv_w4,
    linear_reference=linear_w4_ref,
    conv_reference=conv_w4_ref,
)
_W8: Final = _Format(
    name="w8",
    per_byte=1,
    grouped=False,
    plan_linear=plan_linear_w8,
    plan_conv=plan_conv_w8,
    linear_reference=linear_w8_ref,
    conv_reference=conv_w8_ref,
)


@torch.library.triton_op("pocketxl::linear_w4", mutates_args={})
def linear_w4(
    x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None = None, residual: Tensor | None = None
) -> Tensor:
    """A linear layer on 4-bit weights: `x @ (q * scale)^T + bias + residual`.

    Weights become the dtype of `x` in registers, rounded once; sums and the epilogue are float32, rounded once.

    `x`: (…, k), float16 or bfloat16. `weight`: (n, k/2), uint8, from `pack_w4`. `scale`: (n, k/group), float16; groups
    of 32, 64 or 128. `bias`: (n,), the dtype of `x`. `residual`: (…, n), the dtype of `x`, added at the end.

    Returns (…, n), the dtype of `x`. A NaN in x or in a scale gives NaN in its row or column.

    Raises `UnsupportedShapeError`: k is no multiple of 64 and of the group, operands do not fit together, or x has
    another dtype.
    """
    return _linear(_W4, x, weight, scale, bias, residual)


@torch.library.triton_op("pocketxl::linear_w8", mutates_args={})
def linear_w8(
    x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None = None, residual: Tensor | None = None
) -> Tensor:
    """A linear layer on 8-bit weights and 16-bit activations: `(x @ q^T) * scale + bias + residual`.

    `x`: (…, k), float16 or bfloat16. `weight`: (n, k), int8, from `pack_w8`. `scale`: (n,), float32: of each output
    channel. `bias`: (n,), the dtype of `x`. `residual`: (…, n), the dtype of `x`, added at the end.

    Returns (…, n), the dtype of `x`. A NaN in x or in a scale gives NaN in its row or column.

    Raises `UnsupportedShapeError`: k is no multiple of 64, operands do not fit together, or x has another dtype.
    """
    return _linear(_W8, x, weight, scale, bias, residual)


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
    """A 3×3 (padding 1) or 1×1 convolution on 4-bit weights: `conv(x, q * scale) + bias + time + residual`.

    `x`: (b, h, w, c), contiguous; float16 or bfloat16. `weight`: (n, k, k, c/2), uint8, from `pack_w4`. `scale`: (n, k,
    k, c/group), float16; groups of 32, 64 or 128. `bias`: (n,), the dtype of `x`. `time`: (b, n), the dtype of `x`,
    added to every pixel. `residual`: the shape and dtype of the output, added at the end. `stride`: 1, or 2 for 3×3.
    `upsample_to`: height and width that x is seen at, nearest neighbour: each twice that of x or one less.

    Returns (b, ho, wo, n), the dtype of `x`; ho and wo as of x, halved rounding up, or `upsample_to`.

    Raises `UnsupportedShapeError`: c is no multiple of 64 and of the group (conv_in: keep it float), operands do not
    fit together, no such filter, stride or size, or x has another dtype.
    """
    return _conv(_W4, x, weight, scale, bias, time, residual, stride, upsample_to)


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

    `x`: (b, h, w, c), contiguous; float16 or bfloat16. `weight`: (n, k, k, c), int8, from `pack_w8`. `scale`: (n,),
    float32: of each output channel. `bias`: (n,), the dtype of `x`. `time`: (b, n), the dtype of `x`, added to every
    pixel. `residual`: the shape and dtype of the output, added at the end. `stride`: 1, or 2 for 3×3. `upsample_to`:
    height and width that x is seen at, nearest neighbour: each twice that of x or one less.

    Returns (b, ho, wo, n), the dtype of `x`.

    Raises `UnsupportedShapeError`: as `conv_w4`.
    """
    return _conv(_W8, x, weight, scale, bias, time, residual, stride, upsample_to)


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


def _linear(
    form: _Format, x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None, residual: Tensor | None
) -> Tensor:
    k, n = x.shape[-1], weight.shape[0]
    op = f"linear_{form.name}"
    _check_weight(op, x, weight, scale, (n, k // form.per_byte), form.scale_shape((n,), scale))
    if not runs_kernels(x):
        return form.linear_reference(x, weight, scale, bias, residual).to(x.dtype)
    inputs = _inputs(x.reshape(-1, k), weight, scale, bias, None, None if residual is None else residual.reshape(-1, n))
    plan = form.plan_linear(
        m=inputs["x"].shape[0],
        n=n,
        k=k,
        arch=architecture_of(x),
        dtype=dtype_name(x.dtype),
        bias=bias is not None,
        residual=residual is not None,
        **form.group(k, scale),
    )
    return execute(plan, inputs)["out"].reshape(*x.shape[:-1], n)


def _conv(
    form: _Format,
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    time: Tensor | None,
    residual: Tensor | None,
    stride: int,
    upsample_to: list[int] | None,
) -> Tensor:
    b, h, w, c = x.shape
    n, kernel = weight.shape[:2]
    op, filters = f"conv_{form.name}", (n, kernel, kernel)
    _check_weight(op, x, weight, scale, (*filters, c // form.per_byte), form.scale_shape(filters, scale))
    grown = None if upsample_to is None else (upsample_to[0], upsample_to[1])
    output_size(op, h, w, kernel, stride, grown)
    if not runs_kernels(x):
        return form.conv_reference(x, weight, scale, bias, time, residual, stride, upsample_to).to(x.dtype)
    plan = form.plan_conv(
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
        **form.group(c, scale),
    )
    return execute(plan, _inputs(x, weight, scale, bias, time, residual))["out"]


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
