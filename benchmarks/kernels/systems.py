"""Who is timed on a call: our op here, torch's layers in `peers`.

A system is a function from a seed to one run's work on inputs of its own; making the inputs is not timed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

from pocketxl.kernels.architecture import Architecture
from pocketxl.kernels.execute import execute
from pocketxl.kernels.launch import LaunchPlan
from pocketxl.kernels.samples import samples
from pocketxl.kernels.sdxl import Call, launch_plan

Work = Callable[[], object]
System = Callable[[int], Work]
DEVICE = "cuda"


def ours(made: LaunchPlan) -> System:
    """Our op on the plan's shapes."""

    def system(seed: int) -> Work:
        inputs = samples(made, device=DEVICE, seed=seed)
        return lambda: execute(made, inputs)

    return system


def ours_with_quantization(call: Call, arch: Architecture) -> System:
    """Our linear with the quantization of its input, which a float16 peer does not need."""
    made = launch_plan(call, arch)
    shape = {"m": call.shape["m"], "c": call.shape["k"], "dtype": call.shape["dtype"]}
    quantize = launch_plan(Call(op="quantize_per_token", shape=shape, count=1), arch)

    def system(seed: int) -> Work:
        inputs, given = samples(made, device=DEVICE, seed=seed), samples(quantize, device=DEVICE, seed=seed + 50)

        def run() -> object:
            x = execute(quantize, given)
            return execute(made, {**inputs, "x": x["q"], "x_scale": x["scale"]})

        return run

    return system


def normal(*shape: int, seed: int, dtype: torch.dtype = torch.float16) -> Tensor:
    """Normal numbers on the GPU."""
    random = torch.Generator(DEVICE).manual_seed(seed)
    return torch.randn(shape, generator=random, device=DEVICE).to(dtype)


def short_sums(system: System) -> System:
    """The same with matrix products that sum in float16, which GeForce cards take twice as fast."""

    def wrapped(seed: int) -> Work:
        work = system(seed)

        def run() -> object:
            with _short_sums():
                return work()

        return run

    return wrapped


@contextmanager
def _short_sums() -> Iterator[None]:
    torch.backends.cuda.matmul.allow_fp16_accumulation = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_fp16_accumulation = False


def rows_to_int8(x: Tensor) -> tuple[Tensor, Tensor]:
    """Quantization per row as one writes it in torch; what a compiler may fuse."""
    value = x.float()
    scale = value.abs().amax(-1, keepdim=True).clamp_min(1e-30) / 127
    return (value / scale).round().to(torch.int8), scale


def compiled_once(layer: Callable[..., object]) -> Callable[..., object]:
    """`layer` by torch.compile, which is asked at the first run: it takes seconds to import even."""

    @cache
    def made() -> Callable[..., object]:
        return torch.compile(layer, dynamic=False)

    return lambda *given: made()(*given)
