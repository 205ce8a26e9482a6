"""The 8-bit linears as torch ops: eager, compiled, exported, in CUDA graphs, and on a CPU."""

import torch
from torch import Tensor

from ..execute import architecture_of, dtype_name, execute, runs_kernels
from .plan import plan_geglu_linear_w8a8, plan_linear_w8a8
from .reference import geglu_linear_w8a8_ref, linear_w8a8_ref


@torch.library.triton_op("pocketxl::linear_w8a8", mutates_args={})
def linear_w8a8(
    x: Tensor,
    x_scale: Tensor | None,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    out_dtype: torch.dtype = torch.float16,
) -> Tensor:
    """A linear layer on 8-bit operands: `x_scale * weight_scale * (x @ weight^T) + bias + residual`.

    Sums are int32 (exact) for int8, float32 for float8; the epilogue is float32 and rounds once.

    `x`: (…, k), int8 or float8_e4m3fn. `x_scale`: (…), float32: of each token; None: all of x has one scale,
    which `weight_scale` has in it. `weight`: (n, k), the dtype of `x`.
    `weight_scale`: (n,), float32: of each output channel. `bias`: (n,), `out_dtype`. `residual`: (…, n), `out_dtype`,
    added at the end. `out_dtype`: float16, bfloat16 or float32.

    Returns (…, n). A NaN in a scale gives NaN in its row or column.

    Raises `UnsupportedShapeError`: k is no multiple of 16, or the GPU has no float8.
    """
    if not runs_kernels(x):
        return linear_w8a8_ref(x, x_scale, weight, weight_scale, bias, residual).to(out_dtype)
    lead, k, n = x.shape[:-1], x.shape[-1], weight.shape[0]
    inputs = inputs_of(x, x_scale, weight, weight_scale, bias)
    if residual is not None:
        inputs["residual"] = residual.reshape(-1, n).contiguous()
    plan = plan_linear_w8a8(
        m=inputs["x"].shape[0],
        n=n,
        k=k,
        arch=architecture_of(x),
        dtype=dtype_name(x.dtype),
        out_dtype=dtype_name(out_dtype),
        bias=bias is not None,
        residual=residual is not None,
        static=x_scale is None,
    )
    return execute(plan, inputs)["out"].reshape(*lead, n)


@linear_w8a8.register_fake  # type: ignore[untyped-decorator]
def _(
    x: Tensor,
    x_scale: Tensor | None,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    out_dtype: torch.dtype = torch.float16,
) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]), dtype=out_dtype)


@torch.library.triton_op("pocketxl::geglu_linear_w8a8", mutates_args={})
def geglu_linear_w8a8(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None = None,
    out_dtype: torch.dtype = torch.float16,
    inverse: Tensor | None = None,
) -> Tensor:
    """GEGLU's projection on 8-bit operands: `value * gelu(gate)` with the exact (erf) GELU.

    `x`: (…, k), int8 or float8_e4m3fn. `x_scale`: (…), float32: of each token. `weight`: (2n, k), the dtype of `x`: the
    value's rows, then the gate's, as in diffusers. `weight_scale`: (2n,), float32. `bias`: (2n,), `out_dtype`.
    `out_dtype`: float16, bfloat16 or float32. `inverse`: (n,), float32: what each channel is multiplied with before it
    is rounded to int8, ties to even, at most 127; None: it is not.

    Returns (…, n), `out_dtype` or int8. In int8 no NaN is seen.

    Raises `UnsupportedShapeError`: k is no multiple of 16, or the GPU has no float8.
    """
    if not runs_kernels(x):
        made = geglu_linear_w8a8_ref(x, x_scale, weight, weight_scale, bias, inverse)
        return made.to(out_dtype if inverse is None else torch.int8)
    lead, k, n = x.shape[:-1], x.shape[-1], weight.shape[0] // 2
    inputs = inputs_of(x, x_scale, weight, weight_scale, bias)
    if inverse is not None:
        inputs["inverse"] = inverse.contiguous()
    plan = plan_geglu_linear_w8a8(
        m=inputs["x"].shape[0],
        n=n,
        k=k,
        arch=architecture_of(x),
        dtype=dtype_name(x.dtype),
        out_dtype=dtype_name(out_dtype),
        bias=bias is not None,
        quantized=inverse is not None,
    )
    return execute(plan, inputs)["out"].reshape(*lead, n)


@geglu_linear_w8a8.register_fake  # type: ignore[untyped-decorator]
def _(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None = None,
    out_dtype: torch.dtype = torch.float16,
    inverse: Tensor | None = None,
) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0] // 2), dtype=out_dtype if inverse is None else torch.int8)


def inputs_of(
    x: Tensor, x_scale: Tensor | None, weight: Tensor, weight_scale: Tensor, bias: Tensor | None
) -> dict[str, Tensor]:
    """The operands as plans name them: rows of tokens, each tensor contiguous."""
    inputs = {
        "x": x.reshape(-1, x.shape[-1]).contiguous(),
        "weight": weight.contiguous(),
        "weight_scale": weight_scale.contiguous(),
    }
    if x_scale is not None:
        inputs["x_scale"] = x_scale.reshape(-1).contiguous()
    if bias is not None:
        inputs["bias"] = bias.contiguous()
    return inputs
