"""Inputs of layers to 8 bits and back: what the kernels of every target do to them, in plain torch."""

from typing import Final

import numpy as np
import torch
from torch import Tensor

from .formats import Activation
from .grid import E4M3, LARGEST_E4M3
from .rounded import Floats

# The least magnitude that a scale is made from: rows of zeros get one that can be divided by (as in our kernels).
LEAST: Final = 1e-30


def round_inputs(
    x: Floats,
    how: Activation,
    *,
    group: int | None = None,
    amax: float | None = None,
    scale: Floats | float | None = None,
    zero: int | None = None,
) -> Floats:
    """What is left of inputs `[rows, in]` after rounding to 8 bits and back.

    Integers by the tensor's own range are uint8 with a zero point, as ONNX's DynamicQuantizeLinear has them; by token
    or `group`, int8 with scale = amax / 127, as our kernels and ONNX Runtime's MatMulNBits (accuracy level 4) do;
    static ones uint8 with the given `scale` (one, or `[in]`) and `zero`, or, where they are signed, int8 with `scale`
    alone. Floats are e4m3 with scale = amax / 448, or static with the given `scale` or that of the given `amax`; what
    lies outside becomes the end of the range.

    Raises `ValueError` for bits other than 8 and for a missing `group`, `amax`, or `scale` and `zero`.
    """
    given = None if scale is None else torch.from_numpy(np.asarray(scale, np.float32))
    return rounded_inputs(torch.from_numpy(x), how, group=group, amax=amax, scale=given, zero=zero).numpy()


def rounded_inputs(
    x: Tensor,
    how: Activation,
    *,
    group: int | None = None,
    amax: float | None = None,
    scale: Tensor | None = None,
    zero: int | None = None,
) -> Tensor:
    """The same on tensors."""
    if how.bits != 8:
        raise ValueError(f"inputs are rounded to 8 bits, not to {how.bits}")
    if how.range == "dynamic":
        if how.granularity == "tensor" and how.kind == "int":
            return _own_uint8_range(x)
        return _symmetric(x, how, group)
    if how.kind == "float":
        if scale is not None:
            return _e4m3(x, scale)
        if amax is None:
            raise ValueError(f"{how} needs the calibrated amax or scale of the inputs")
        return _e4m3(x, torch.tensor(max(amax, LEAST) / LARGEST_E4M3))
    if how.signed and scale is not None:
        return (x / scale).round_().clamp_(-128, 127).mul_(scale)
    if scale is None or zero is None:
        raise ValueError(f"{how} needs the calibrated scale and zero point of the inputs")
    return _uint8(x, scale, float(zero))


def _own_uint8_range(x: Tensor) -> Tensor:
    low, high = float(x.min().clamp(max=0)), float(x.max().clamp(min=0))
    if high - low <= LEAST:
        return torch.zeros_like(x)
    scale = torch.tensor(high - low) / 255
    return _uint8(x, scale, float((-low / scale).round().clamp(0, 255)))


def _uint8(x: Tensor, scale: Tensor, zero: float) -> Tensor:
    return (x / scale).round_().clamp_(-zero, 255 - zero).mul_(scale)


def _symmetric(x: Tensor, how: Activation, group: int | None) -> Tensor:
    """By the largest magnitude of whatever shares a scale."""
    rows, width = x.shape
    if how.granularity == "group":
        if group is None:
            raise ValueError(f"{how} needs the size of a group")
        padded = torch.nn.functional.pad(x, (0, -width % group))
        return _by_run(padded.reshape(-1, group), how).view(rows, -1)[:, :width].contiguous()
    if how.granularity == "token":
        return _by_run(x, how)
    if how.granularity in ("tensor", "picture"):  # rows that were sampled from several pictures count as one
        return _by_run(x.reshape(1, -1), how).view(rows, width)
    raise ValueError(f"inputs cannot have a dynamic range for every {how.granularity}")


def _by_run(runs: Tensor, how: Activation) -> Tensor:
    amax = runs.abs().amax(1, keepdim=True).clamp_min(LEAST)
    if how.kind == "float":
        return _e4m3(runs, amax / LARGEST_E4M3)
    scale = amax / 127
    return (runs / scale).round_().clamp_(-127, 127).mul_(scale)


def _e4m3(x: Tensor, scale: Tensor) -> Tensor:
    return (x / scale).clamp_(-LARGEST_E4M3, LARGEST_E4M3).to(E4M3).float().mul_(scale)
