"""Is the op right on this GPU, on the very shape that is timed? Asked before any time is taken."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Final

from torch import Tensor

from pocketxl.kernels.execute import execute
from pocketxl.kernels.launch import LaunchPlan
from pocketxl.kernels.samples import samples
from pocketxl.kernels.sdxl import OPS, Call

from .systems import DEVICE

# |ours - reference| / |reference| (L2) at most. A rounding to float16 is 2e-4 and a step of int8 that rounds the other
# way in a few elements 1e-3; a wrong tile, scale or tail is 1e-1 and more.
ALLOWED: Final = 5e-3
# Attention on int8 queries and keys differs by what quantization costs.
ALLOWED_INT8_ATTENTION: Final = 5e-2
# What a call says and a reference sees in its tensors, or in their absence.
IN_TENSORS: Final = {"dtype", "bias", "time", "residual"}


class WrongResultError(Exception):
    """An op does not compute what its reference computes; names the op, the shape and the error."""


def check(call: Call, made: LaunchPlan, device: str = DEVICE) -> float:
    """Compare all outputs with the float64 reference; returns the largest relative error.

    Raises `WrongResultError`: it is more than allowed, or not a number.
    """
    inputs = samples(made, device=device, seed=7)
    outputs = list(execute(made, inputs).values())
    truth = reference(call, inputs)
    allowed = ALLOWED_INT8_ATTENTION if call.op == "attention_int8" else ALLOWED
    largest = 0.0
    for value, expected in zip(outputs, truth, strict=True):
        error = relative_error(value, expected)
        if not error <= allowed:  # NaN is not
            raise WrongResultError(f"{call.op} is wrong on {dict(call.shape)}: relative error {error:.3g} > {allowed}")
        largest = max(largest, error)
    return largest


def relative_error(value: Tensor, expected: Tensor) -> float:
    """|value - expected| / |expected|, L2, in float64."""
    value, expected = value.double().flatten(), expected.double().flatten()
    return float((value - expected).norm() / expected.norm().clamp_min(1e-30))


def reference(call: Call, inputs: Mapping[str, Tensor]) -> Sequence[Tensor]:
    """What `<op>_ref` gives for the inputs, always as a sequence."""
    name = call.op.removesuffix("_int8")  # approximates the same as its float16 form
    function = getattr(importlib.import_module(f"pocketxl.kernels.{OPS[call.op]}.reference"), f"{name}_ref")
    # Strides, groups and the like, which calls and references know by the same names.
    taken = inspect.signature(function).parameters.keys() - inputs.keys() - IN_TENSORS
    found: Any = function(**inputs, **{name: call.shape[name] for name in taken if name in call.shape})
    return (found,) if isinstance(found, Tensor) else tuple(found)
