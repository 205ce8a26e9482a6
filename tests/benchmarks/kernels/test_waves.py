"""Seconds of launches: by arithmetic that can be done by hand, and near what others measured of the same design."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from benchmarks.kernels.gpus import GPUS
from benchmarks.kernels.held import in_triton
from benchmarks.kernels.waves import launch_bytes, plan_seconds
from pocketxl.kernels.launch import LaunchPlan
from pocketxl.kernels.sdxl import Call, launch_plan

from ...tolerances import PREDICTED_ANCHOR

GAP = 1.3e-6


def plan(gpu: str, op: str, **shape: Any) -> LaunchPlan:
    return launch_plan(Call(op=op, shape=shape, count=1), GPUS[gpu].architecture)


def linear(gpu: str, m: int, n: int, k: int) -> float:
    return plan_seconds(plan(gpu, "linear_w8a8", m=m, n=n, k=k, bias=False), GPUS[gpu])


def test_a_linear_takes_the_tiles_of_the_busiest_multiprocessor() -> None:
    """160 tiles of 128 by 128 on 128 multiprocessors: two; 20 steps of 64, each 1024 clocks of 2048 operations."""
    clocks = 2 * (20 * 1024 / 0.9 + 3500) * 1.1
    assert linear("rtx-4090", 2048, 1280, 1280) == pytest.approx(clocks / 2.52e9 + GAP)
    assert linear("rtx-3060", 2048, 1280, 1280) == pytest.approx(3 * clocks / 1.777e9 + GAP)  # six


def test_tiles_that_are_shared_out_take_their_share_and_their_sums() -> None:
    """32 of 160 tiles of 80 steps, among 128; sums of at most 159 tiles, 64 KB each, which an Ada card's L2 holds."""
    first, _ = plan("rtx-4090", "linear_w8a8", m=2048, n=1280, k=5120, bias=False).launches
    assert (first.arguments["whole"], first.arguments["sharers"]) == (128, 128)
    clocks = ((80 + 20) * 1024 / 0.9 + 3 * 3500) * 1.1
    sums, out = 159 * 65536 / (16 * 128 * 2.52e9), (2 * 2048 * 1280 // 5 + 4 * (2048 + 1280)) / (1008e9 * 0.85)
    assert linear("rtx-4090", 2048, 1280, 5120) == pytest.approx(clocks / 2.52e9 + sums + out + 2 * GAP, rel=1e-3)


def test_a_thin_linear_takes_its_traffic() -> None:
    traffic = 4096 * 65536 + 16 * (4096 + 2 * 65536) + 4 * (65536 + 16)  # weight; x in bytes, out in halves; scales
    assert linear("rtx-4090", 16, 65536, 4096) == pytest.approx(traffic / (1008e9 * 0.85) + GAP)


def test_each_launch_of_a_norm_takes_what_it_reads_and_writes() -> None:
    gpu, made = GPUS["rtx-3090"], plan("rtx-3090", "group_norm_silu_quantize", b=2, h=128, w=128, c=320)
    x = 2 * 128 * 128 * 320
    statistics, merge, apply = (launch_bytes(made, launch) for launch in made.launches)
    assert 2 * x < statistics < 2.2 * x
    assert merge < 0.2 * x
    assert 3 * x < apply < 3.1 * x
    assert plan_seconds(made, gpu) == pytest.approx((statistics + merge + apply) / (936e9 * 0.85) + 3 * GAP)


def test_attention_is_a_share_of_its_tensor_cores() -> None:
    """640 programs on 128 multiprocessors are five each, none idle: FlashAttention-2's share of the peak."""
    shape = {"batch": 2, "m": 4096, "n": 4096, "heads": 10}
    operations = 4 * 2 * 10 * 4096**2 * 64
    halves = plan_seconds(plan("rtx-4090", "attention", **shape), GPUS["rtx-4090"])
    assert halves == pytest.approx(operations / (165.2e12 * 0.95) + GAP, rel=1e-3)
    made = plan("rtx-4090", "attention_int8", **shape, accumulate_half=True)
    keys = sum(launch_bytes(made, launch) for launch in made.launches[:-1]) / (1008e9 * 0.85)
    expected = operations / (440.4e12 * 0.7) + keys + 3 * GAP
    assert plan_seconds(made, GPUS["rtx-4090"]) == pytest.approx(expected, rel=1e-3)


def test_tritons_steps_wait_on_hopper_and_its_own_kernels_take_what_was_measured() -> None:
    gpu, call = GPUS["h100"], Call(op="linear_w8a8", shape={"m": 2048, "n": 1280, "k": 1280, "bias": False}, count=1)
    arch = gpu.architecture
    triton = in_triton(call.op, arch, partial(launch_plan, call))
    assert plan_seconds(triton, gpu) == pytest.approx(2 * (10 * (512 + 150) + 3500) * 1.1 / 1.83e9 + GAP)
    made = launch_plan(call, arch)
    (launch,) = made.launches
    assert launch.kernel == "hopper.linear_w8a8_async_kernel"
    assert (launch.constants["BLOCK_M"], launch.constants["SECOND_N"]) == (128, 32)  # 128 tiles: one each
    tile = (1705 + 10 * 386) * 1e-9
    assert plan_seconds(made, gpu) == pytest.approx(tile + made.traffic * 0.3e-12 + 2.7e-6)


@pytest.mark.parametrize(("side", "measured"), [(1024, 175e12), (2048, 493e12), (4096, 543e12)])
def test_products_are_near_those_measured_on_a_5090(side: int, measured: float) -> None:
    """Triton's int8 with scales of rows, the same design (gau-nernst/gn-kernels)."""
    gpu = GPUS["rtx-5090"]
    whole = replace(gpu.architecture, multiprocessors=1)  # theirs has a program for every tile
    made = launch_plan(Call(op="linear_w8a8", shape={"m": side, "n": side, "k": side, "bias": False}, count=1), whole)
    assert 2 * side**3 / plan_seconds(made, gpu) == pytest.approx(measured, rel=PREDICTED_ANCHOR)
