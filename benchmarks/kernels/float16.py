"""What float16 libraries should take for the same network: cuBLAS, cuDNN and fused attention, by shares of their peaks.

Modelled generously, as a tuned program would be: additions, biases and SiLUs are fused into neighbours (GEGLU's gate is
not), and keys and values of the prompt are outside the loop, which torch's own graph does not do. The same bandwidth,
gaps between launches and waves of attention are taken as of our kernels.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log
from typing import Final

from pocketxl.kernels.launch import cdiv
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

from .gpus import Gpu
from .waves import GAP, attention_share, traffic_seconds, waves

Points = Sequence[tuple[float, float]]
"""(seconds that a product would take at the peak, share of the peak that it reaches), shortest first."""

# cuBLAS on GeForce cards by the size of a product, bfloat16 with float32 sums: 131, 168 and 203 of 209.5 TFLOPS at
# 1024^3, 2048^3 and 4096^3 on an RTX 5090 (gau-nernst/gn-kernels); held between 0.72 and 0.92, which is generous to
# small ones and keeps off the clocks above the stated boost.
GEFORCE: Final = ((35e-6, 0.72), (82e-6, 0.80), (360e-6, 0.92))
# The same with float16 sums, twice the rate: Triton reaches 149, 279 and 267 of 419 there, and SDXL on a 3090 went from
# 4 to 5 steps a second by them (ComfyUI, pull request 6453).
GEFORCE_SHORT: Final = ((20e-6, 0.45), (60e-6, 0.62), (130e-6, 0.65))
# cuBLAS on an H100, measured: 13 us for 6.7 GOP, 33 us for 20, 85 us for 54 (benchmarks/results,
# 2026-11-26-kernels-first-run-h100), and 749 of 989 TFLOPS at 8192^3.
HOPPER: Final = ((6.8e-6, 0.53), (20.4e-6, 0.62), (54e-6, 0.64), (1100e-6, 0.757))
# cuDNN's 3x3 convolutions on NHWC. GeForce: an estimate. H100: 0.45 to 0.68 measured there, the middle.
CONV_GEFORCE: Final = 0.8
CONV_HOPPER: Final = 0.55
# Queries of one program of FlashAttention-2 and of cuDNN's attention with heads of 64.
QUERIES: Final = 128


@dataclass(frozen=True, kw_only=True)
class Step:
    """One launch of a library: seconds of arithmetic at what it reaches, and bytes."""

    group: str
    arithmetic: float
    traffic: float

    def seconds(self, gpu: Gpu) -> float:
        """The longer of arithmetic and traffic, and the gap before it."""
        return max(self.arithmetic, traffic_seconds(self.traffic, gpu)) + GAP


def float16_seconds(model: UNetName, gpu: Gpu, *, size: int, batch: int, short_sums: bool = False) -> dict[str, float]:
    """Predicted seconds of one forward in float16, by kind of layer.

    `size`: of the square picture, in pixels. `batch`: latents, 2 for a picture with guidance. `short_sums`: linears sum
    in float16, which cuBLAS can and is not the default of torch; cuDNN and attention do not.
    """
    found: defaultdict[str, float] = defaultdict(float)
    for layer in layers(model, height=size, width=size, batch=batch):
        for step in float16_steps(layer, gpu, short_sums=short_sums):
            found[step.group] += step.seconds(gpu)
    return dict(found)


def float16_steps(layer: Layer, gpu: Gpu, *, short_sums: bool = False) -> Iterator[Step]:
    """The launches that compute one layer."""
    match layer:
        case Conv():
            pixels_in = layer.batch * layer.height * layer.width
            pixels_out = layer.batch * layer.out_height * layer.out_width
            elements = pixels_in * layer.c_in + pixels_out * layer.c_out * (2 if layer.residual else 1)
            elements += layer.c_in * layer.c_out * layer.kernel**2
            share = CONV_GEFORCE if gpu.geforce else CONV_HOPPER
            yield Step(group="conv", arithmetic=layer.operations / (gpu.float16 * share), traffic=2.0 * elements)
        case Linear():
            columns = layer.n * (2 if layer.gated else 1)
            written = layer.rows * columns * (2 if layer.residual else 1)
            elements = layer.rows * layer.k + written + layer.k * columns
            seconds = linear_seconds(layer.operations, gpu, short_sums=short_sums)
            yield Step(group="linear", arithmetic=seconds, traffic=2.0 * elements)
            if layer.gated:
                yield Step(group="gate", arithmetic=0.0, traffic=2.0 * layer.rows * (columns + layer.n))
        case Attention():
            programs = cdiv(layer.queries, QUERIES) * layer.heads * layer.batch
            fill = programs / (waves(programs, gpu) * gpu.multiprocessors)
            seconds = layer.operations / (gpu.float16 * attention_share(gpu, eight_bits=False) * fill)
            elements = 2 * layer.batch * layer.heads * HEAD_DIM * (layer.queries + layer.keys)
            yield Step(group="attention", arithmetic=seconds, traffic=2.0 * elements)
        case GroupNorm():
            elements = 3 * layer.batch * layer.height * layer.width * layer.channels  # read twice
            yield Step(group="norm", arithmetic=0.0, traffic=2.0 * elements)
        case LayerNorm():
            yield Step(group="norm", arithmetic=0.0, traffic=2.0 * 2 * layer.rows * layer.channels)
        case Concatenate():
            yield Step(group="concatenate", arithmetic=0.0, traffic=2.0 * 2 * layer.pixels * sum(layer.channels))


def linear_seconds(operations: float, gpu: Gpu, *, short_sums: bool = False) -> float:
    """Seconds of cuBLAS for a product of so many operations; with short sums, where it has them and they are faster."""
    points = GEFORCE if gpu.geforce else HOPPER
    usual = operations / gpu.float16 / share_at(operations / gpu.float16, points)
    if not short_sums or not gpu.geforce:
        return usual
    short = operations / gpu.float16_short / share_at(operations / gpu.float16_short, GEFORCE_SHORT)
    return min(usual, short)


def share_at(seconds: float, points: Points) -> float:
    """Between two points by the logarithm of seconds; before the first and behind the last as there."""
    if seconds <= points[0][0]:
        return points[0][1]
    for (before, low), (after, high) in pairwise(points):
        if seconds <= after:
            return low + (high - low) * log(seconds / before) / log(after / before)
    return points[-1][1]
