"""The truth for the quantizations, in float64 and plain torch."""

import torch
from torch import Tensor

LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}
# The least magnitude that a scale is made from: rows of zeros get a scale that can be divided by.
LEAST = 1e-30


def scale_ref(value: Tensor, dims: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Scale over `dims` (kept), float64; NaN where there is an infinity or a NaN."""
    amax = value.double().abs().amax(dims, keepdim=True).clamp_min(LEAST)
    return amax.where(amax.isfinite(), torch.nan) / LARGEST[dtype]


def quantize_ref(value: Tensor, dims: tuple[int, ...], dtype: torch.dtype = torch.int8) -> tuple[Tensor, Tensor]:
    """`value` in 8 bits, ties to even, and its scale over `dims`, float32, without those dimensions.

    Where the scale is NaN the 8 bits mean nothing; here they are 0.
    """
    scale = scale_ref(value, dims, dtype)
    steps = (value.double() / scale).nan_to_num(0.0, 0.0, 0.0)
    if dtype == torch.int8:
        steps = steps.round()
    return steps.clamp(-LARGEST[dtype], LARGEST[dtype]).to(dtype), scale.squeeze(dims).float()


def quantize_per_token_ref(x: Tensor, dtype: torch.dtype = torch.int8) -> tuple[Tensor, Tensor]:
    """What `quantize_per_token` approximates."""
    return quantize_ref(x, (-1,), dtype)


def quantize_per_image_ref(x: Tensor, dtype: torch.dtype = torch.int8) -> tuple[Tensor, Tensor]:
    """What `quantize_per_image` approximates."""
    return quantize_ref(x, (1, 2, 3), dtype)


def narrowed_ref(value: Tensor, inverse: Tensor | None) -> Tensor:
    """`value` times `inverse` of each channel in whole steps of int8, ties to even, float64; as it is without."""
    if inverse is None:
        return value
    return (value * inverse.double()).round().clamp(-127, 127)


def geglu_ref(x: Tensor, inverse: Tensor | None = None) -> Tensor:
    """`value * gelu(gate)` of `x (…, 2n)`, float64; with `inverse` see `narrowed_ref`."""
    value, gate = x.double().chunk(2, -1)
    return narrowed_ref(value * torch.nn.functional.gelu(gate), inverse)


def geglu_quantize_ref(x: Tensor, dtype: torch.dtype = torch.int8) -> tuple[Tensor, Tensor]:
    """What `geglu_quantize` approximates."""
    return quantize_ref(geglu_ref(x), (-1,), dtype)
