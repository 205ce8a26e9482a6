"""The float16 linear and convolution as torch ops: eager, compiled, exported, in CUDA graphs, and on a CPU."""

import torch
from torch import Tensor

from ..conv.plan import output_size, seen_size
from ..execute import architecture_of, dtype_name, execute, runs_kernels
from .plan import plan_conv_f16, plan_linear_f16
from .reference import conv_f16_ref, linear_f16_ref


@torch.library.triton_op("pocketxl::linear_f16", mutates_args={})
def linear_f16(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    activation: str | None = None,
    out_dtype: torch.dtype = torch.float16,
) -> Tensor:
    """A linear layer on float16 operands: `activation(x @ weight^T + bias) + residual`.

    Sums are float32, and so is all behind them, which rounds once.

    `x`: (…, k), float16. `weight`: (n, k), float16. `bias`: (n,), float16. `residual`: (…, n), float16, added at the
    end. `activation`: None, gelu (exact, by erf), quick_gelu (`x * sigmoid(1.702 x)`) or silu. `out_dtype`: float16 or
    float32.

    Returns (…, n). A NaN in x gives NaN in its row. Widths that are multiples of 64 are fastest, of 16 fast.

    Raises `UnsupportedShapeError`: another activation or output.
    """
    if not runs_kernels(x):
        return linear_f16_ref(x, weight, bias, residual, activation).to(out_dtype)
    n, k = weight.shape
    rows = x.reshape(-1, k)
    added = None if residual is None else residual.reshape(-1, n)
    given = {"x": rows, "weight": weight, "bias": bias, "residual": added}
    plan = plan_linear_f16(
        m=rows.shape[0],
        n=n,
        k=k,
        arch=architecture_of(x),
        bias=bias is not None,
        residual=residual is not None,
        activation=activation,
        out_dtype=dtype_name(out_dtype),
    )
    inputs = {name: tensor.contiguous() for name, tensor in given.items() if tensor is not None}
    return execute(plan, inputs)["out"].reshape(*x.shape[:-1], n)


@linear_f16.register_fake  # type: ignore[untyped-decorator]
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    activation: str | None = None,
    out_dtype: torch.dtype = torch.float16,
) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]), dtype=out_dtype)


@torch.library.triton_op("pocketxl::conv_f16", mutates_args={})
def conv_f16(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    time: Tensor | None = None,
    residual: Tensor | None = None,
    x2: Tensor | None = None,
    stride: int = 1,
    upsample_to: list[int] | None = None,
    out_dtype: torch.dtype = torch.float16,
) -> Tensor:
    """A convolution on float16 operands in NHWC, with what a residual block adds to it.

    `conv(x, weight) + bias + time + residual`, zero padding that keeps the size (1 for 3x3, 0 for 1x1). Sums are
    float32, and so is what is added to them, which rounds once.

    `x`: (b, h, w, c), float16. `weight`: (n, k, k, c + c2), float16, k 1 or 3. `bias`: (n,), float16. `time`: (b, n),
    float16: added to every pixel of a picture. `residual`: (b, ho, wo, n), float16, added at the end. `x2`: (b, h, w,
    c2), float16: channels that stand behind those of `x`, as if concatenated. `stride`: 1 or 2. `upsample_to`: height
    and width to which the convolution sees the picture enlarged by nearest neighbours, each twice that of `x` or one
    less (a level of odd size); 3x3, stride 1 only. `out_dtype`: float16 or float32.

    Returns (b, ho, wo, n).

    Raises `UnsupportedShapeError`: c or c2 is no multiple of 16, another kernel, stride or output.
    """
    if not runs_kernels(x):
        return conv_f16_ref(x, weight, bias, time, residual, x2, stride, upsample_to).to(
            out_dtype, memory_format=torch.contiguous_format
        )  # fmt: skip
    b, h, w, c = x.shape
    given = {"x": x, "x2": x2, "weight": weight, "bias": bias, "time": time, "residual": residual}
    plan = plan_conv_f16(
        b=b,
        h=h,
        w=w,
        c=c,
        n=weight.shape[0],
        arch=architecture_of(x),
        c2=0 if x2 is None else x2.shape[-1],
        kernel=weight.shape[1],
        stride=stride,
        upsample_to=upsample_to,
        out_dtype=dtype_name(out_dtype),
        bias=bias is not None,
        time=time is not None,
        residual=residual is not None,
    )
    return execute(plan, {name: tensor.contiguous() for name, tensor in given.items() if tensor is not None})["out"]


@conv_f16.register_fake  # type: ignore[untyped-decorator]
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    time: Tensor | None = None,
    residual: Tensor | None = None,
    x2: Tensor | None = None,
    stride: int = 1,
    upsample_to: list[int] | None = None,
    out_dtype: torch.dtype = torch.float16,
) -> Tensor:
    seen = seen_size(x.shape[1], x.shape[2], upsample_to)
    ho, wo = output_size(seen, stride=stride)
    return x.new_empty((x.shape[0], ho, wo, weight.shape[0]), dtype=out_dtype)
