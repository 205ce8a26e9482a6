"""What a launch multiplies is what its op says it does, and a tile's rounding up."""

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.kernels.gpus import GPUS
from benchmarks.kernels.products import Attended, Product, product_of
from pocketxl.kernels.architecture import architecture
from pocketxl.kernels.launch import LaunchPlan
from pocketxl.kernels.sdxl import Call, launch_plan


def plan(op: str, sm: int = 89, **shape: Any) -> LaunchPlan:
    return launch_plan(Call(op=op, shape=shape, count=1), architecture(sm))


@pytest.mark.parametrize("sm", [86, 89, 90, 120])
@pytest.mark.parametrize(
    "made",
    [
        ("linear_w8a8", {"m": 2560, "n": 2560, "k": 1280}),
        ("linear_f16", {"m": 2560, "n": 2560, "k": 1280}),
        ("geglu_linear_w8a8", {"m": 2560, "n": 5120, "k": 1280}),
        ("linear_w4a8", {"m": 2560, "n": 2560, "k": 1280}),
        ("geglu_linear_w4a8", {"m": 2560, "n": 5120, "k": 1280}),
        ("conv_w8a8", {"b": 2, "h": 64, "w": 64, "c": 640, "n": 640}),
        ("conv_f16", {"b": 2, "h": 64, "w": 64, "c": 640, "c2": 640, "n": 640, "kernel": 1}),
        ("conv_f16", {"b": 2, "h": 32, "w": 32, "c": 1280, "n": 1280, "stride": 2}),
    ],
    ids=lambda made: made[0],
)
def test_tiles_and_steps_make_the_operations_of_the_op(made: tuple[str, dict[str, Any]], sm: int) -> None:
    """Shares and tiles round up: never less, and not a third more where sizes are many tiles."""
    op, shape = made
    found = plan(op, sm, **shape)
    product = product_of(found.launches[0])
    assert isinstance(product, Product)
    total = product.programs * product.steps * product.operations_of_step
    assert 1 <= total / sum(found.operations.values()) < 4 / 3


def test_shares_of_a_sum_are_programs_of_fewer_steps() -> None:
    shape = {"b": 2, "h": 32, "w": 32, "c": 1280, "n": 1280}
    shared = plan("conv_w8a8", 89, **shape).launches[0]
    whole = replace(shared, grid=(shared.grid[0], 1, 1))
    ours, alone = product_of(shared), product_of(whole)
    assert isinstance(ours, Product)
    assert isinstance(alone, Product)
    assert ours.programs == alone.programs * shared.grid[1]
    assert ours.steps == -(-alone.steps // shared.grid[1])
    assert shared.grid[1] > 1


def test_attention_is_two_products_at_their_own_rates() -> None:
    gpu, shape = GPUS["rtx-4090"], {"batch": 2, "m": 4096, "n": 4096, "heads": 10}
    (halves,) = plan("attention", **shape).launches
    float_sums, half_sums = (
        plan("attention_int8", **shape, accumulate_half=half).launches[-1] for half in (False, True)
    )
    one = 2 * 128 * 4096 * 64  # operations of a program's scores
    for launch, clocks in (
        (halves, one / 512 + one / 512),
        (float_sums, one / 2048 + one / 512),
        (half_sums, one / 2048 + one / 1024),
    ):
        attended = product_of(launch)
        assert isinstance(attended, Attended)
        assert attended.programs == 32 * 10 * 2
        assert attended.clocks(gpu) == clocks


def test_keys_fill_blocks() -> None:
    (launch,) = plan("attention", batch=1, m=1024, n=77, heads=20).launches
    attended = product_of(launch)
    assert isinstance(attended, Attended)
    assert attended.keys == 96


def test_norms_and_quantizations_multiply_nothing() -> None:
    for made in (
        plan("group_norm_silu_quantize", b=2, h=32, w=32, c=1280),
        plan("quantize_per_token", m=2048, c=1280),
        plan("layer_norm_quantize", m=2048, c=1280),
    ):
        assert all(product_of(launch) is None for launch in made.launches)


def test_a_kernel_that_is_not_known_is_refused() -> None:
    (launch,) = plan("attention", batch=1, m=1024, n=77, heads=20).launches
    with pytest.raises(ValueError, match=r"new\.kernel"):
        product_of(replace(launch, kernel="new.kernel"))
    with pytest.raises(ValueError, match="e4m3"):
        product_of(replace(launch, instruction="e4m3"))
