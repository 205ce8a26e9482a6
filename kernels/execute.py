"""Run a plan on torch tensors: through Triton on a GPU, through its interpreter where that was asked for."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

import torch
from torch import Tensor

from .architecture import Architecture, architecture
from .errors import require
from .launch import LaunchPlan

# Triton itself reads this once, when a kernel is defined.
_INTERPRETED: Final = os.environ.get("TRITON_INTERPRET") == "1"

Allocate = Callable[..., Tensor]


def dtype_name(dtype: torch.dtype) -> str:
    """`float16` for `torch.float16`."""
    return str(dtype).removeprefix("torch.")


def architecture_of(tensor: Tensor) -> Architecture:
    """The architecture of a tensor's GPU; on a CPU, where only the interpreter runs kernels, that of sm_89."""
    if tensor.device.type != "cuda":
        return architecture(89)
    return _of_device(tensor.device.index if tensor.device.index is not None else torch.cuda.current_device())


@cache
def _of_device(index: int) -> Architecture:
    major, minor = torch.cuda.get_device_capability(index)
    return architecture(10 * major + minor, torch.cuda.get_device_properties(index).multi_processor_count)


def runs_kernels(tensor: Tensor) -> bool:
    """Whether Triton runs on this tensor: on a GPU, or anywhere under its interpreter. Else ops use plain torch."""
    return tensor.device.type == "cuda" or _INTERPRETED


@cache
def kernel_function(kernel: str) -> Any:
    """The Triton function of `folder.function`."""
    folder, name = kernel.split(".")
    return getattr(importlib.import_module(f".{folder}.kernel", __package__), name)


def execute(plan: LaunchPlan, inputs: Mapping[str, Tensor], allocate: Allocate = torch.empty) -> dict[str, Tensor]:
    """Run every launch of a plan; returns its outputs.

    `plan`: what to run. `inputs`: one contiguous tensor for each input of the plan. `allocate`: makes outputs and
    scratch, called like `torch.empty`.
    """
    from triton.runtime.jit import JITFunction

    for name, buffer in plan.inputs.items():
        # A kernel reads what the plan says, wherever that may be: memory that is not the tensor's must not be reached.
        found = inputs[name]
        require(
            tuple(found.shape) == tuple(buffer.shape) and dtype_name(found.dtype) == buffer.dtype,
            plan.op,
            {name: f"{dtype_name(found.dtype)} {tuple(found.shape)}"},
            f"the other operands call for {buffer.dtype} {tuple(buffer.shape)}",
        )
    device = next(iter(inputs.values())).device
    made = {
        name: allocate(buffer.shape, dtype=getattr(torch, buffer.dtype), device=device)
        for name, buffer in {**plan.outputs, **plan.scratch}.items()
    }
    tensors = {**inputs, **made}
    for launch in plan.launches:
        function = kernel_function(launch.kernel)
        if isinstance(function, JITFunction):
            function = torch.library.wrap_triton(function)
        arguments = {
            name: tensors[value] if isinstance(value, str) else value for name, value in launch.arguments.items()
        }
        function[launch.grid](**arguments, **launch.constants, num_warps=launch.num_warps, num_stages=launch.num_stages)
    return {name: made[name] for name in plan.outputs}
