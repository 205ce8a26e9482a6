"""What the kernels should take on GPUs that are not here: stated peaks times stated achievable shares. No measurement.

A call takes the longer of its arithmetic and its traffic; a forward takes the sum of its calls. Launch gaps, waves that
do not fill a GPU, and what stays in the L2 cache are left out, so what comes out are floors of the time. The float16
peer is modelled the same way and generously: additions, biases and SiLUs are fused into neighbours (GEGLU's gate is
not), and keys and values of the prompt are outside the loop, which torch's own graph does not do.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from pocketxl.kernels.architecture import architecture
from pocketxl.kernels.sdxl import Call, calls, launch_plan
from pocketxl.kernels.sdxl_layers import (
    HEAD_DIM,
    Attention,
    Concatenate,
    Conv,
    GroupNorm,
    Layer,
    LayerNorm,
    Linear,
    UNetName,
    layers,
)

from ..report import Record
from .gpus import Gpu

# Share of the int8 peak that Triton reaches: 481-512 of 838 TOPS, RTX 5090, 4096^3 (gau-nernst/quantized-training).
INT8: Final = 0.6
# The same of the float8 peak with float32 sums: 207 of 419 there.
FLOAT8: Final = 0.5
# Share of the float16 peak that a library's GEMM reaches: torchao's roofline model.
FLOAT16: Final = 0.78
# The same where sums are float16, twice the rate on GeForce cards: Triton reaches 235-270 of 419 on an RTX 5090, and
# SDXL on a 3090 went from 4 to 5 steps a second by it (ComfyUI, pull request 6453), which 0.65 gives as well.
FLOAT16_SHORT: Final = 0.65
# Share of the bandwidth: torchao takes 0.92 for copies; norms read twice and end in short tails.
BANDWIDTH: Final = 0.85
# Attention with heads of 64. GeForce: FlashAttention-2 reaches 69 of 71 (3090) and 161 of 165 (4090) with float32 sums;
# SageAttention's int8 + float16 form 323 on a 4090, of the 440 that its two halves allow. H100: cuDNN 408 of 989.
ATTENTION_GEFORCE: Final = 0.95
ATTENTION_GEFORCE_INT8: Final = 0.7
ATTENTION_HOPPER: Final = 0.41

PREDICTED_BATCH: Final = 1
SYSTEM: Final = "prediction-"
"""Every system's name begins so."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """Operations by the kind of peak that bounds them, as seconds each at the achievable rate; and bytes."""

    group: str
    seconds_of_arithmetic: float
    traffic: float

    def seconds(self, gpu: Gpu) -> float:
        """The longer of arithmetic and traffic."""
        return max(self.seconds_of_arithmetic, self.traffic / (gpu.bandwidth * BANDWIDTH))


def work_of_call(call: Call, gpu: Gpu) -> Work:
    """One of the calls, on our kernels; `count` is not counted."""
    made = launch_plan(call, architecture(gpu.sm))
    if call.op.startswith("attention"):
        arithmetic = _attention_seconds(made.operations, gpu)
    else:
        arithmetic = sum(amount / _rate(kind, gpu) for kind, amount in made.operations.items())
    return Work(group=call.op, seconds_of_arithmetic=arithmetic, traffic=made.traffic)


def work_in_float16(layer: Layer, gpu: Gpu, *, short_sums: bool = False) -> Work:
    """One layer as a float16 library computes it; `short_sums`: linears sum in float16 (cuBLAS can, cuDNN does not)."""
    peak, share = gpu.float16, FLOAT16
    match layer:
        case Conv():
            group = "conv"
            pixels_in, pixels_out = (
                layer.batch * layer.height * layer.width,
                layer.batch * layer.out_height * layer.out_width,
            )
            elements = pixels_in * layer.c_in + pixels_out * layer.c_out * (2 if layer.residual else 1)
            elements += layer.c_in * layer.c_out * layer.kernel**2
        case Linear():
            group = "linear"
            if short_sums:
                peak, share = gpu.float16_short, FLOAT16_SHORT
            # Without a fused gate, what GEGLU splits is written and read once, beside its result.
            wide = layer.n * 5 if layer.gated else layer.n * (2 if layer.residual else 1)
            elements = layer.rows * (layer.k + wide) + layer.k * layer.n * (2 if layer.gated else 1)
        case Attention():
            group = "attention"
            # Libraries always sum shares times values in float32.
            peak, share = gpu.float16, ATTENTION_GEFORCE if gpu.geforce else ATTENTION_HOPPER
            elements = 2 * layer.batch * layer.heads * HEAD_DIM * (layer.queries + layer.keys)
        case GroupNorm():
            group, elements = "norm", 2 * layer.batch * layer.height * layer.width * layer.channels
        case LayerNorm():
            group, elements = "norm", 2 * layer.rows * layer.channels
        case Concatenate():
            group, elements = "concatenate", 2 * layer.pixels * sum(layer.channels)
    return Work(group=group, seconds_of_arithmetic=layer.operations / (peak * share), traffic=2.0 * elements)


def left_to_the_library(walk: Iterable[Layer]) -> Iterator[Layer]:
    """The layers that `w8a8` has no call for: first and last convolution, concatenations."""
    return (
        layer for layer in walk if isinstance(layer, Concatenate) or (isinstance(layer, Conv) and layer.role in ENDS)
    )


ENDS: Final = ("in", "out")


def forward_seconds(
    model: UNetName, gpu: Gpu, *, size: int = 1024, batch: int = 1, dtype: str = "int8"
) -> dict[str, float]:
    """Predicted seconds of one forward with our kernels, by op."""
    found: defaultdict[str, float] = defaultdict(float)
    for call in calls(model, height=size, width=size, batch=batch, dtype=dtype):
        work = work_of_call(call, gpu)
        found[work.group] += call.count * work.seconds(gpu)
    for layer in left_to_the_library(layers(model, height=size, width=size, batch=batch)):
        found["library"] += work_in_float16(layer, gpu).seconds(gpu)
    return dict(found)


def float16_seconds(
    model: UNetName, gpu: Gpu, *, size: int = 1024, batch: int = 1, short_sums: bool = False
) -> dict[str, float]:
    """Predicted seconds of one forward in float16, by kind of layer."""
    found: defaultdict[str, float] = defaultdict(float)
    for layer in layers(model, height=size, width=size, batch=batch):
        work = work_in_float16(layer, gpu, short_sums=short_sums)
        found[work.group] += work.seconds(gpu)
    return dict(found)


def predict(gpu: Gpu, *, size: int = 1024, batch: int = PREDICTED_BATCH) -> list[Record]:
    """Every prediction for one GPU: forwards of both models, whole and by op, ours and in float16."""
    records = []
    for model in ("base", "refiner"):
        case = f"{gpu.name}_{model}_{size}_b{batch}"
        systems: dict[str, Mapping[str, float]] = {
            "w8a8": forward_seconds(model, gpu, size=size, batch=batch),
            "float16": float16_seconds(model, gpu, size=size, batch=batch),
        }
        if gpu.float8 is not None:
            systems["w8a8-float8"] = forward_seconds(model, gpu, size=size, batch=batch, dtype="float8_e4m3fn")
        if gpu.float16_short > gpu.float16:
            systems["float16-short-sums"] = float16_seconds(model, gpu, size=size, batch=batch, short_sums=True)
        for system, parts in systems.items():
            records.append(_record(case, system, sum(parts.values())))
            records += [_record(f"{case}_{part}", system, seconds) for part, seconds in parts.items()]
    return records


def _record(case: str, system: str, seconds: float) -> Record:
    return Record(case=case, system=SYSTEM + system, metric="predicted_seconds", value=seconds, unit="s")


def _rate(kind: str, gpu: Gpu) -> float:
    rates = {"int8": gpu.int8 * INT8, "float16": gpu.float16 * FLOAT16, "bfloat16": gpu.float16 * FLOAT16}
    if gpu.float8 is not None:
        rates["float8_e4m3fn"] = gpu.float8 * FLOAT8
    return rates[kind]


def _attention_seconds(operations: Mapping[str, int], gpu: Gpu) -> float:
    if "int8" not in operations:
        return operations["float16"] / (gpu.float16 * (ATTENTION_GEFORCE if gpu.geforce else ATTENTION_HOPPER))
    # Float32 sums of shares times values: the default, and at the half rate of GeForce cards the slower half.
    at_peak = operations["int8"] / gpu.int8 + operations["float16"] / gpu.float16
    return at_peak / (ATTENTION_GEFORCE_INT8 if gpu.geforce else ATTENTION_HOPPER)
