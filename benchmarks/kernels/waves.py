"""Seconds of a launch on a GPU that is not here, in waves of programs. No measurement, but where it says so.

A multiprocessor does its tiles one after the other: programs that share one share its tensor cores, and what they win
by it is that loads and barriers overlap, which is in `OVERLAP`. So a launch takes as long as the multiprocessor with
most tiles: `waves` = programs / multiprocessors, rounded up. It never takes less than its traffic, of which nothing is
taken from the L2 cache, and the next one waits for its end.
"""

from typing import Final

from pocketxl.kernels.launch import Launch, LaunchPlan, cdiv

from .gpus import Gpu
from .hopper_tiles import BYTE, LAUNCH, tile_seconds
from .products import Attended, Product, product_of, tiles_of

# Share of its clocks that a main loop keeps the tensor cores busy. The compiled int8 loops of sm_86 and sm_89 are 64
# matrix instructions (1024 clocks of them) among 127: their loads and addresses fit beside, the barriers do not quite.
OVERLAP: Final = 0.9
# Clocks in which a step waits for its matrix instructions instead: Triton's int8 `wgmma` on Hopper, whose every step
# ends in a wait for all of them (SASS). An estimate: latency of the instruction and of the barrier.
WAIT: Final = 150
# Clocks of a tile before its first step and behind its last: the first loads, a linear's turn of its sums through
# shared memory (about 1,500), scales, bias, residual and stores. An estimate from the SASS.
ENDS: Final = 3500
# What is in no term: addresses, the order of tiles in L2, clocks below boost. With it the model gives 191, 455 and 562
# TOPS for int8 products of 1024^3, 2048^3 and 4096^3 on an RTX 5090, where gau-nernst/gn-kernels measured 175, 493
# and 543 for the same design in Triton.
UNKNOWN: Final = 1.1
# Share of the bandwidth: torchao takes 0.92 for copies; norms read twice and end in short tails. A large copy reached
# 0.72 on an H100, whose forward, where much is read from L2, is nearer with this.
BANDWIDTH: Final = 0.85
# Bytes that a multiprocessor has of the L2 cache in a clock. An estimate from an Ada card's 5 TB/s.
CACHED: Final = 16
# Seconds between dependent launches of a CUDA graph. An estimate: a launch that was timed alone on an H100 is 2.7 us
# (`hopper_tiles`), first loads and last stores included, which other terms hold here.
GAP: Final = 1.3e-6
# Whole attention kernels with heads of 64, of what their tensor cores would do, so without any of the terms above but
# waves. GeForce: FlashAttention-2 reaches 69 of 71 (3090) and 161 of 165 (4090) with float32 sums; SageAttention's
# int8 + float16 form 323 on a 4090, of the 440 that its two halves allow. H100: cuDNN 408 of 989; exponentials bind it.
ATTENTION_GEFORCE: Final = 0.95
ATTENTION_GEFORCE_INT8: Final = 0.7
ATTENTION_HOPPER: Final = 0.41
ADDS: Final = "linear.linear_sum_kernel"
"""Reads the sums of shared tiles, and of result and residual those tiles alone."""


def plan_seconds(made: LaunchPlan, gpu: Gpu) -> float:
    """Seconds of all launches of a plan, one after the other.

    Raises `ValueError`: one multiplies in a way that the model does not know.
    """
    return sum(launch_seconds(made, launch, gpu) for launch in made.launches)


def launch_seconds(made: LaunchPlan, launch: Launch, gpu: Gpu) -> float:
    """Seconds of one of a plan's launches, with the gap before it. Raises as `plan_seconds`."""
    product, traffic = product_of(launch), launch_bytes(made, launch)
    if isinstance(product, Product) and (measured := tile_seconds(launch, product)) is not None:
        return waves(product.programs, gpu) * measured + traffic * BYTE + LAUNCH
    cached = _cached_bytes(made, launch, gpu)
    moved = traffic_seconds(traffic - cached, gpu) + cached / (CACHED * gpu.multiprocessors * gpu.clock)
    return max(_all_clocks(product, launch, gpu) / gpu.clock, moved) + GAP


def waves(programs: int, gpu: Gpu) -> int:
    """Tiles of the multiprocessor that has most."""
    return cdiv(programs, gpu.multiprocessors)


def launch_bytes(made: LaunchPlan, launch: Launch) -> int:
    """Bytes of every buffer that a launch is given, each once."""
    names = {value for value in launch.arguments.values() if isinstance(value, str)}
    given = sum(made.buffers[name].size_bytes for name in names)
    if launch.kernel != ADDS:
        return given
    elsewhere = sum(made.buffers[name].size_bytes for name in names & {"out", "residual"})
    return given - elsewhere * _number(launch, "whole") // tiles_of(launch)


def traffic_seconds(traffic: float, gpu: Gpu) -> float:
    """Seconds to read and write so many bytes."""
    return traffic / (gpu.bandwidth * BANDWIDTH)


def attention_share(gpu: Gpu, *, eight_bits: bool) -> float:
    """The share of its tensor cores' rate that attention reaches, `eight_bits`: with int8 scores."""
    if not gpu.geforce:
        return ATTENTION_HOPPER
    return ATTENTION_GEFORCE_INT8 if eight_bits else ATTENTION_GEFORCE


def _cached_bytes(made: LaunchPlan, launch: Launch, gpu: Gpu) -> int:
    """Of `launch_bytes`, those of sums that several share, where half of the L2 cache holds them."""
    if not launch.arguments.get("sharers"):
        return 0
    sums = made.buffers["sums"].size_bytes
    return sums if 2 * sums <= gpu.architecture.l2 * gpu.multiprocessors else 0


def _all_clocks(product: Product | Attended | None, launch: Launch, gpu: Gpu) -> float:
    """Clocks of the multiprocessor with most tiles; 0: it multiplies nothing."""
    if product is None:
        return 0.0
    if isinstance(product, Attended):
        share = attention_share(gpu, eight_bits=product.eight_bits)
        return waves(product.programs, gpu) * product.clocks(gpu) / share
    rate = gpu.int8_per_clock if launch.instruction == "s8" else gpu.float16_per_clock
    step = product.operations_of_step / rate
    waits = gpu.architecture.wgmma and launch.instruction == "s8"
    a_step = step + WAIT if waits else step / OVERLAP
    whole = waves(product.programs, gpu) * (product.steps * a_step + ENDS)
    # A share may have a part of two tiles, each with its ends.
    shared = waves(product.sharers, gpu) * (product.share * a_step + 2 * ENDS)
    return (whole + shared) * UNKNOWN


def _number(launch: Launch, name: str) -> int:
    found = launch.arguments[name]
    assert isinstance(found, int), (name, found)
    return found
