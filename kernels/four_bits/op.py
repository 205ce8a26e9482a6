"""4-bit weights by 8-bit activations as a torch op: eager, compiled, exported, in CUDA graphs, and on a CPU."""

import torch
from torch import Tensor

from ..execute import architecture_of, dtype_name, execute, runs_kernels
from ..linear.op import inputs_of
from .plan import plan_geglu_linear_w4a8, plan_linear_w4a8
from .reference import geglu_linear_w4a8_ref, linear_w4a8_ref


@torch.library.triton_op("pocketxl::linear_w4a8", mutates_args={})
def linear_w4a8(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    out_dtype: torch.dtype = torch.float16,
) -> Tensor:
    """A linear layer on 8-bit activations and 4-bit weights: `x_scale * (x @ (q * weight_scale)^T) + bias + residual`.

    A group's sums are exact; scales, their sum and the epilogue are float32, rounded once.

    `x`: (…, k), int8. `x_scale`: (…), float32: of each token. `weight`: (n, k/2), uint8, from `pack_w4` in groups of
    64. `weight_scale`: (n, k/64), float16. `bias`: (n,), `out_dtype`. `residual`: (…, n), `out_dtype`, added at the
    end. `out_dtype`: float16, bfloat16 or float32.

    Returns (…, n). A NaN in a scale gives NaN in its row or column.

    Raises `UnsupportedShapeError`: k is no multiple of 64, or operands do not fit together.
    """
    if not runs_kernels(x):
        return linear_w4a8_ref(x, x_scale, weight, weight_scale, bias, residual).to(out_dtype)
    lead, k, n = x.shape[:-1], x.shape[-1], weight.shape[0]
    inputs = inputs_of(x, x_scale, weight, weight_scale, bias)
    if residual is not None:
        inputs["residual"] = residual.reshape(-1, n).contiguous()
    plan = plan_linear_w4a8(
        m=inputs["x"].shape[0],
        n=n,
        k=k,
        arch=architecture_of(x),
        out_dtype=dtype_name(out_dtype),
        bias=bias is not None,
        residual=residual is not None,
    )
    return execute(plan, inputs)["out"].reshape(*lead, n)


@linear_w4a8.register_fake  # type: ignore[untyped-decorator]
def _(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    out_dtype: torch.dtype = torch.float16,
) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]), dtype=out_dtype)


@torch.library.triton_op("pocketxl::geglu_linear_w4a8", mutates_args={})
def geglu_linear_w4a8(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None = None,
    out_dtype: torch.dtype = torch.float16,
    inverse: Tensor | None = None,
) -> Tensor:
    """GEGLU's projection on 8-bit activations and 4-bit weights: `value * gelu(gate)` with the exact (erf) GELU.

    `x`: (…, k), int8. `x_scale`: (…), float32: of each token. `weight`: (2n, k/2), uint8, from `pack_w4` in groups of
    64: the value's rows, then the gate's, as in diffusers. `weight_scale`: (2n, k/64), float16. `bias`: (2n,),
    `out_dtype`. `out_dtype`: float16, bfloat16 or float32. `inverse`: (n,), float32: what each channel is multiplied
    with before it is rounded to int8, ties to even, at most 127; None: it is not.

    Returns (…, n), `out_dtype` or int8. In int8 no NaN is seen.

    Raises `UnsupportedShapeError`: k is no multiple of 64, or operands do not fit together.
    """
    if not runs_kernels(x):
        made = geglu_linear_w4a8_ref(x, x_scale, weight, weight_scale, bias, inverse)
        return made.to(out_dtype if inverse is None else torch.int8)
    lead, k, n = x.shape[:-1], x.shape[-1], weight.shape[0] // 2
    inputs = inputs_of(x, x_scale, weight, weight_scale, bias)
    if inverse is not None:
        inputs["inverse"] = inverse.contiguous()
    plan = plan_geglu_linear_w4a8(
        m=inputs["x"].shape[0],
        n=n,
        k=k,
        arch=architecture_of(x),
        out_dtype=dtype_name(out_dtype),
        bias=bias is not None,
        quantized=inverse is not None,
    )
    return execute(plan, inputs)["out"].reshape(*lead, n)


@geglu_linear_w4a8.register_fake  # type: ignore[untyped-decorator]
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
