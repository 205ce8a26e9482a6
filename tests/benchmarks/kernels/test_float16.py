"""Float16 libraries: counted in halves, by shares that were measured, and near the speed that people report."""

import pytest

from benchmarks.kernels.float16 import GEFORCE, float16_seconds, float16_steps, linear_seconds, share_at
from benchmarks.kernels.gpus import GPUS
from pocketxl.kernels.sdxl_layers import Attention, Concatenate, Conv, Linear

from ...tolerances import PREDICTED_ANCHOR


def test_a_share_grows_with_the_logarithm_of_a_products_time() -> None:
    assert share_at(1e-6, GEFORCE) == 0.72
    assert share_at(1, GEFORCE) == 0.92
    assert share_at((82e-6 * 360e-6) ** 0.5, GEFORCE) == pytest.approx(0.86)


def test_short_sums_are_for_linears_on_geforce() -> None:
    gpu = GPUS["rtx-3090"]
    assert linear_seconds(1e12, gpu) == pytest.approx(1e12 / gpu.float16 / 0.92)
    assert linear_seconds(1e12, gpu, short_sums=True) == pytest.approx(1e12 / gpu.float16_short / 0.65)
    conv = Conv(role="conv1", batch=1, height=64, width=64, c_in=640, c_out=640)
    assert list(float16_steps(conv, gpu)) == list(float16_steps(conv, gpu, short_sums=True))
    hopper = GPUS["h100"]
    assert linear_seconds(1e12, hopper) == linear_seconds(1e12, hopper, short_sums=True)


def test_traffic_is_counted_in_halves_and_a_gate_is_a_launch_of_its_own() -> None:
    gpu = GPUS["rtx-4090"]
    (linear,) = float16_steps(Linear(role="q", rows=8192, k=4096, n=4096), gpu)
    assert linear.traffic == 2 * (8192 * 4096 * 2 + 4096 * 4096)
    wide, gate = float16_steps(Linear(role="ff_in", rows=2048, k=1280, n=5120, gated=True), gpu)
    assert wide.traffic == 2 * (2048 * 1280 + 2048 * 10240 + 1280 * 10240)
    assert gate.seconds(gpu) == pytest.approx(2 * 2048 * 15360 / (1008e9 * 0.85) + 1.3e-6)
    (beside,) = float16_steps(Concatenate(pixels=100, channels=(3, 5)), gpu)
    assert beside.traffic == 2 * 2 * 800


def test_attention_has_waves_as_ours_has() -> None:
    """320 blocks of 128 queries are two and a half for each of 128 multiprocessors: three."""
    (step,) = float16_steps(Attention(batch=2, heads=20, queries=1024, keys=1024, cross=False), GPUS["rtx-4090"])
    assert step.arithmetic == pytest.approx(4 * 40 * 1024**2 * 64 / (165.2e12 * 0.95) * 3 / 2.5, rel=1e-3)


@pytest.mark.parametrize(("short_sums", "reported"), [(False, 1 / 4), (True, 1 / 5)])
def test_a_3090_takes_as_long_as_people_report(short_sums: bool, reported: float) -> None:
    """4 and 5 steps a second with guidance at 1024², so two latents (ComfyUI, pull request 6453)."""
    parts = float16_seconds("base", GPUS["rtx-3090"], size=1024, batch=2, short_sums=short_sums)
    assert sum(parts.values()) == pytest.approx(reported, rel=PREDICTED_ANCHOR)
