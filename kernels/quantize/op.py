"""The quantizations as torch ops: eager, compiled, exported, in CUDA graphs, and on a CPU."""

import torch
from torch import Tensor

from ..execute import architecture_of, dtype_name, execute, runs_kernels
from .plan import plan_geglu, plan_geglu_quantize, plan_quantize_per_image, plan_quantize_per_token
from .reference import geglu_quantize_ref, geglu_ref, quantize_per_image_ref, quantize_per_token_ref


@torch.library.triton_op("pocketxl::quantize_per_token", mutates_args={})
def quantize_per_token(x: Tensor, dtype: torch.dtype = torch.int8) -> tuple[Tensor, Tensor]:
    """Quantize every token with its own scale: `x ≈ q * scale[..., None]`, the largest magnitude at 127 (448).

    `x`: (…, c), float16, bfloat16 or float32. `dtype`: int8, or float8_e4m3fn (sm_89 and later).

    Returns q (…, c), `dtype`, and scale (…), float32. The scale of a token with a NaN or an infinity is NaN; that of a
    token of zeros is 1e-30 / 127. Rounded to nearest, ties to even.

    Raises `UnsupportedShapeError`: c is no multiple of 16 or above 16384, or the GPU has no float8.
    """
    if not runs_kernels(x):
        return quantize_per_token_ref(x, dtype)
    c = x.shape[-1]
    rows = x.reshape(-1, c).contiguous()
    plan = plan_quantize_per_token(
        m=rows.shape[0], c=c, arch=architecture_of(x), dtype=dtype_name(dtype), x_dtype=dtype_name(x.dtype)
    )
    made = execute(plan, {"x": rows})
    return made["q"].reshape(x.shape), made["scale"].reshape(x.shape[:-1])


@quantize_per_token.register_fake  # type: ignore[untyped-decorator]
def _(x: Tensor, dtype: torch.dtype = torch.int8) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape, dtype=dtype), x.new_empty(x.shape[:-1], dtype=torch.float32)


@torch.library.triton_op("pocketxl::quantize_per_image", mutates_args={})
def quantize_per_image(x: Tensor, dtype: torch.dtype = torch.int8) -> tuple[Tensor, Tensor]:
    """Quantize every picture with its own scale: `x ≈ q * scale[:, None, None, None]`.

    `x`: (B, H, W, C), float16, bfloat16 or float32. `dtype`: int8, or float8_e4m3fn (sm_89 and later).

    Returns q (B, H, W, C), `dtype`, and scale (B,), float32; NaN, zeros and rounding as in `quantize_per_token`. A
    picture's result does not depend on the others of the batch.

    Raises `UnsupportedShapeError`: C is no multiple of 16, a picture has 2^31 elements, or the GPU has no float8.
    """
    if not runs_kernels(x):
        return quantize_per_image_ref(x, dtype)
    batch, height, width, c = x.shape
    plan = plan_quantize_per_image(
        b=batch,
        h=height,
        w=width,
        c=c,
        arch=architecture_of(x),
        dtype=dtype_name(dtype),
        x_dtype=dtype_name(x.dtype),
    )
    made = execute(plan, {"x": x.contiguous()})
    return made["q"], made["scale"]


@quantize_per_image.register_fake  # type: ignore[untyped-decorator]
def _(x: Tensor, dtype: torch.dtype = torch.int8) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape, dtype=dtype), x.new_empty(x.shape[:1], dtype=torch.float32)


@torch.library.triton_op("pocketxl::geglu_quantize", mutates_args={})
def geglu_quantize(x: Tensor, dtype: torch.dtype = torch.int8) -> tuple[Tensor, Tensor]:
    """GEGLU, then every token quantized: `value * gelu(gate)` with the exact (erf) GELU, in float32.

    `x`: (…, 2n): values, then gates, as in diffusers; float16, bfloat16 or float32. `dtype`: int8, or float8_e4m3fn
    (sm_89 and later).

    Returns q (…, n), `dtype`, and scale (…), float32; NaN, zeros and rounding as in `quantize_per_token`.

    Raises `UnsupportedShapeError`: n is no multiple of 16 or above 16384, or the GPU has no float8.
    """
    if not runs_kernels(x):
        return geglu_quantize_ref(x, dtype)
    lead, n = x.shape[:-1], x.shape[-1] // 2
    rows = x.reshape(-1, x.shape[-1]).contiguous()
    plan = plan_geglu_quantize(
        m=rows.shape[0], n=n, arch=architecture_of(x), dtype=dtype_name(dtype), x_dtype=dtype_name(x.dtype)
    )
    made = execute(plan, {"x": rows})
    return made["q"].reshape(*lead, n), made["scale"].reshape(lead)


@geglu_quantize.register_fake  # type: ignore[untyped-decorator]
def _(x: Tensor, dtype: torch.dtype = torch.int8) -> tuple[Tensor, Tensor]:
    lead = x.shape[:-1]
    return x.new_empty((*lead, x.shape[-1] // 2), dtype=dtype), x.new_empty(lead, dtype=torch.float32)


@torch.library.triton_op("pocketxl::geglu", mutates_args={})
def geglu(x: Tensor, inverse: Tensor | None = None) -> Tensor:
    """GEGLU: `value * gelu(gate)` with the exact (erf) GELU; float32 between, rounded once.

    `x`: (…, 2n): values, then gates, as in diffusers; float16, bfloat16 or float32. `inverse`: (n,), float32: what each
    channel is multiplied with before it is rounded to int8, ties to even, at most 127; None: it is not.

    Returns (…, n), the dtype of `x` or int8. In int8 no NaN is seen.

    Raises `UnsupportedShapeError`: n is no multiple of 16 or above 16384.
    """
    if not runs_kernels(x):
        return geglu_ref(x, inverse).to(x.dtype if inverse is None else torch.int8)
    lead, n = x.shape[:-1], x.shape[-1] // 2
    rows = x.reshape(-1, x.shape[-1]).contiguous()
    plan = plan_geglu(
        m=rows.shape[0], n=n, arch=architecture_of(x), x_dtype=dtype_name(x.dtype), quantized=inverse is not None
    )
    more = {} if inverse is None else {"inverse": inverse.contiguous()}
    return execute(plan, {"x": rows, **more})["out"].reshape(*lead, n)


@geglu.register_fake  # type: ignore[untyped-decorator]
def _(x: Tensor, inverse: Tensor | None = None) -> Tensor:
    return x.new_empty((*x.shape[:-1], x.shape[-1] // 2), dtype=x.dtype if inverse is None else torch.int8)
