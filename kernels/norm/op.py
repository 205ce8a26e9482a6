"""The normalizations as torch ops: eager, compiled, exported, in CUDA graphs, and on a CPU."""

import torch
from torch import Tensor

from ..execute import architecture_of, dtype_name, execute, runs_kernels
from .plan import (
    plan_add_layer_norm_quantize,
    plan_group_norm_silu,
    plan_group_norm_silu_quantize,
    plan_layer_norm,
    plan_layer_norm_quantize,
)
from .reference import (
    add_layer_norm_quantize_ref,
    group_norm_silu_quantize_ref,
    group_norm_silu_ref,
    layer_norm_quantize_ref,
    layer_norm_ref,
)


@torch.library.triton_op("pocketxl::layer_norm", mutates_args={})
def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """LayerNorm over the last dimension; float32 between, rounded once.

    `x`: (…, c), float16, bfloat16 or float32. `weight`: (c,), one of these. `bias`: (c,), the dtype of `weight`. `eps`:
    added to the variance.

    Returns (…, c), the dtype of `x`. A NaN or an infinity makes its whole token NaN.

    Raises `UnsupportedShapeError`: c is no multiple of 16 or above 16384.
    """
    if not runs_kernels(x):
        return layer_norm_ref(x, weight, bias, eps).to(x.dtype)
    rows = x.reshape(-1, x.shape[-1]).contiguous()
    plan = plan_layer_norm(
        m=rows.shape[0],
        c=rows.shape[1],
        arch=architecture_of(x),
        eps=eps,
        x_dtype=dtype_name(x.dtype),
        parameter_dtype=dtype_name(weight.dtype),
    )
    return execute(plan, {"x": rows, **_parameters(weight, bias)})["out"].reshape(x.shape)


@layer_norm.register_fake  # type: ignore[untyped-decorator]
def _(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.triton_op("pocketxl::layer_norm_quantize", mutates_args={})
def layer_norm_quantize(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype = torch.int8
) -> tuple[Tensor, Tensor]:
    """LayerNorm, then every token quantized: `layer_norm(x) ≈ q * scale[..., None]`; float32 between.

    `x`: (…, c), float16, bfloat16 or float32. `weight`: (c,), one of these. `bias`: (c,), the dtype of `weight`. `eps`:
    added to the variance. `dtype`: int8, or float8_e4m3fn (sm_89 and later).

    Returns q (…, c), `dtype`, and scale (…), float32. The scale of a token with a NaN or an infinity is NaN; no scale
    is below 1e-30 / 127. Rounded to nearest, ties to even.

    Raises `UnsupportedShapeError`: c is no multiple of 16 or above 16384, or the GPU has no float8.
    """
    if not runs_kernels(x):
        return layer_norm_quantize_ref(x, weight, bias, eps, dtype)
    rows = x.reshape(-1, x.shape[-1]).contiguous()
    plan = plan_layer_norm_quantize(
        m=rows.shape[0],
        c=rows.shape[1],
        arch=architecture_of(x),
        eps=eps,
        dtype=dtype_name(dtype),
        x_dtype=dtype_name(x.dtype),
        parameter_dtype=dtype_name(weight.dtype),
    )
    made = execute(plan, {"x": rows, **_parameters(weight, bias)})
    return made["q"].reshape(x.shape), made["scale"].reshape(x.shape[:-1])


@layer_norm_quantize.register_fake  # type: ignore[untyped-decorator]
def _(x: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype = torch.int8) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape, dtype=dtype), x.new_empty(x.shape[:-1], dtype=torch.float32)


@torch.library.triton_op("pocketxl::add_layer_norm_quantize", mutates_args={})
def add_layer_norm_quantize(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype = torch.int8
) -> tuple[Tensor, Tensor, Tensor]:
    """`layer_norm_quantize` of `x + residual`, and that sum, which is what later layers add to.

    `x`: (…, c), float16, bfloat16 or float32. `residual`: (…, c), the dtype of `x`. `weight`: (c,), one of these.
    `bias`: (c,), the dtype of `weight`. `eps`: added to the variance. `dtype`: int8, or float8_e4m3fn (sm_89 and
    later).

    Returns q (…, c), `dtype`; scale (…), float32; and the sum (…, c), rounded to the dtype of `x`. What is normalized
    is the rounded sum, as if it had been stored and read again. NaN, zeros and rounding as in `layer_norm_quantize`; a
    sum that the dtype cannot hold is infinite, and its scale NaN.

    Raises `UnsupportedShapeError`: c is no multiple of 16 or above 16384, or the GPU has no float8.
    """
    if not runs_kernels(x):
        return add_layer_norm_quantize_ref(x, residual, weight, bias, eps, dtype)
    rows = x.reshape(-1, x.shape[-1]).contiguous()
    plan = plan_add_layer_norm_quantize(
        m=rows.shape[0],
        c=rows.shape[1],
        arch=architecture_of(x),
        eps=eps,
        dtype=dtype_name(dtype),
        x_dtype=dtype_name(x.dtype),
        parameter_dtype=dtype_name(weight.dtype),
    )
    added = residual.reshape(rows.shape).contiguous()
    made = execute(plan, {"x": rows, "residual": added, **_parameters(weight, bias)})
    return made["q"].reshape(x.shape), made["scale"].reshape(x.shape[:-1]), made["total"].reshape(x.shape)


@add_layer_norm_quantize.register_fake  # type: ignore[untyped-decorator]
def _(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype = torch.int8
) -> tuple[Tensor, Tensor, Tensor]:
    scale = x.new_empty(x.shape[:-1], dtype=torch.float32)
    return x.new_empty(x.shape, dtype=dtype), scale, x.new_empty(x.shape)


@torch.library.triton_op("pocketxl::group_norm_silu", mutates_args={})
def group_norm_silu(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool = True, x2: Tensor | None = None
) -> Tensor:
    """GroupNorm over a picture's pixels and each group's channels, then SiLU; float32 between, rounded once.

    `x`: (B, H, W, C), float16, bfloat16 or float32. `weight`: (C,), one of these. `bias`: (C,), the dtype of `weight`.
    `groups`: of neighbouring channels; divides C. `eps`: added to the variance. `silu`: False leaves SiLU out, as at
    the entry of a transformer. `x2`: (B, H, W, C2), the dtype of `x`: channels that stand behind those of `x`, as if
    concatenated; C is then that of both, except for x, and a group may hold some of each.

    Returns (B, H, W, C), the dtype of `x`. A NaN or an infinity makes its whole group of its picture NaN. A picture's
    result does not depend on the others of the batch.

    Raises `UnsupportedShapeError`: C is no multiple of 16 or of `groups`, or a picture has 2^31 elements.
    """
    if not runs_kernels(x):
        return group_norm_silu_ref(x, weight, bias, groups, eps, silu, x2).to(x.dtype)
    batch, height, width, c = x.shape
    plan = plan_group_norm_silu(
        b=batch,
        h=height,
        w=width,
        c=c,
        c2=0 if x2 is None else x2.shape[-1],
        arch=architecture_of(x),
        groups=groups,
        eps=eps,
        silu=silu,
        x_dtype=dtype_name(x.dtype),
        parameter_dtype=dtype_name(weight.dtype),
    )
    return execute(plan, {**_pictures(x, x2), **_parameters(weight, bias)})["out"]


@group_norm_silu.register_fake  # type: ignore[untyped-decorator]
def _(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool = True, x2: Tensor | None = None
) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


@torch.library.triton_op("pocketxl::group_norm_silu_quantize", mutates_args={})
def group_norm_silu_quantize(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    eps: float,
    silu: bool = True,
    dtype: torch.dtype = torch.int8,
    x2: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`group_norm_silu`, then every picture quantized with its own scale: `≈ q * scale[:, None, None, None]`.

    The scale needs no pass of its own: the statistics keep every channel's least and greatest element, which bound
    what is written. The bound is the largest magnitude itself, or SiLU's trough of 0.2784645 where a channel spans it
    and nothing written is larger.

    `x`: (B, H, W, C), float16, bfloat16 or float32. `weight`: (C,), one of these. `bias`: (C,), the dtype of `weight`.
    `groups`: of neighbouring channels; divides C. `eps`: added to the variance. `silu`: False leaves SiLU out, as at
    the entry of a transformer. `dtype`: int8, or float8_e4m3fn (sm_89 and later). `x2`: as for `group_norm_silu`.

    Returns q (B, H, W, C), `dtype`, and scale (B,), float32. The scale of a picture with a NaN or an infinity is NaN;
    no scale is below 1e-30 / 127. Rounded to nearest, ties to even. A picture's result does not depend on the others of
    the batch.

    Raises `UnsupportedShapeError`: C is no multiple of 16 or of `groups`, a picture has 2^31 elements, or the GPU has
    no float8.
    """
    if not runs_kernels(x):
        return group_norm_silu_quantize_ref(x, weight, bias, groups, eps, silu, dtype, x2)
    batch, height, width, c = x.shape
    plan = plan_group_norm_silu_quantize(
        b=batch,
        h=height,
        w=width,
        c=c,
        c2=0 if x2 is None else x2.shape[-1],
        arch=architecture_of(x),
        groups=groups,
        eps=eps,
        silu=silu,
        dtype=dtype_name(dtype),
        x_dtype=dtype_name(x.dtype),
        parameter_dtype=dtype_name(weight.dtype),
    )
    made = execute(plan, {**_pictures(x, x2), **_parameters(weight, bias)})
    return made["out"], made["scale"]


@group_norm_silu_quantize.register_fake  # type: ignore[untyped-decorator]
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    eps: float,
    silu: bool = True,
    dtype: torch.dtype = torch.int8,
    x2: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    shape = (*x.shape[:-1], weight.shape[0])
    return x.new_empty(shape, dtype=dtype), x.new_empty(x.shape[:1], dtype=torch.float32)


def _pictures(x: Tensor, x2: Tensor | None) -> dict[str, Tensor]:
    return {"x": x.contiguous()} if x2 is None else {"x": x.contiguous(), "x2": x2.contiguous()}


def _parameters(weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    return {"weight": weight.contiguous(), "bias": bias.to(weight.dtype).contiguous()}
