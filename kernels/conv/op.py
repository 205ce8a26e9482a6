"""The 8-bit convolution as a torch op: eager, compiled, exported, in CUDA graphs, and on a CPU."""

import torch
from torch import Tensor

from ..execute import architecture_of, dtype_name, execute, runs_kernels
from .plan import output_size, plan_conv_w8a8, seen_size
from .reference import conv_w8a8_ref


@torch.library.triton_op("pocketxl::conv_w8a8", mutates_args={})
def conv_w8a8(
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
    upsample_to: list[int] | None = None,
    out_dtype: torch.dtype = torch.float16,
) -> Tensor:
    """A convolution on 8-bit operands in NHWC, dequantized, with what a residual block adds to it.

    `conv(x, weight) * x_scale * weight_scale + bias + time + residual`, zero padding that keeps the size (1 for 3x3,
    0 for 1x1). Sums are int32 (exact) for int8, float32 for float8; what follows is float32 and rounds once.

    `x`: (b, h, w, c), int8 or float8_e4m3fn; a torch NCHW tensor in channels_last is `permute(0, 2, 3, 1)` of this.
    `x_scale`: (b,), float32: of each picture. One scale for all is that value b times. `weight`: (n, k, k, c + c2), the
    dtype of `x`, k 1 or 3. `weight_scale`: (n,), float32: of each output channel. `bias`: (n,), `out_dtype`. `time`:
    (b, n), `out_dtype`: added to every pixel of a picture; SDXL's projected timestep. `residual`: (b, ho, wo, n),
    `out_dtype`, added at the end. `x2`: (b, h, w, c2), the dtype of `x`: channels that stand behind those of `x`, as if
    concatenated. `x2_scale`: (b,), float32; given with `x2`. `stride`: 1 or 2. `upsample_to`: height and width to which
    the convolution sees the picture enlarged by nearest neighbours, each twice that of `x` or one less (a level of odd
    size); 3x3, stride 1 only. It is never written enlarged. `out_dtype`: float16, bfloat16 or float32.

    Returns (b, ho, wo, n). A NaN in a picture's scale gives NaN everywhere in that picture.

    Raises `UnsupportedShapeError`: c or c2 is no multiple of 16, another kernel or stride, or the GPU has no float8.
    """
    if (x2 is None) != (x2_scale is None):
        raise ValueError("x2 and x2_scale go together: give both or neither")
    if not runs_kernels(x):
        return conv_w8a8_ref(
            x, x_scale, weight, weight_scale, bias, time, residual, x2, x2_scale, stride, upsample_to
        ).to(out_dtype, memory_format=torch.contiguous_format)  # fmt: skip
    given = {
        "x": x, "x_scale": x_scale, "weight": weight, "weight_scale": weight_scale, "bias": bias, "time": time,
        "residual": residual, "x2": x2, "x2_scale": x2_scale,
    }  # fmt: skip
    b, h, w, c = x.shape
    plan = plan_conv_w8a8(
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
        dtype=dtype_name(x.dtype),
        out_dtype=dtype_name(out_dtype),
        bias=bias is not None,
        time=time is not None,
        residual=residual is not None,
    )
    return execute(plan, {name: tensor.contiguous() for name, tensor in given.items() if tensor is not None})["out"]


@conv_w8a8.register_fake  # type: ignore[untyped-decorator]
def _(
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
    upsample_to: list[int] | None = None,
    out_dtype: torch.dtype = torch.float16,
) -> Tensor:
    seen = seen_size(x.shape[1], x.shape[2], upsample_to)
    ho, wo = output_size(seen, stride=stride)
    return x.new_empty((x.shape[0], ho, wo, weight.shape[0]), dtype=out_dtype)
