"""Which tile serves a size: the one with the least time by the model, and those that were fastest when measured."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketxl.kernels.architecture import architecture
from pocketxl.kernels.closed import all_variants
from pocketxl.kernels.configs import every, lookup
from pocketxl.kernels.configs.tiles import nanoseconds
from pocketxl.kernels.linear.plan import plan_geglu_linear_w8a8, plan_linear_w8a8

SM90 = architecture(90)
KIND = {"fp8": 0, "wide": 0}
depths = st.integers(1, 400).map(lambda units: 16 * units)


def tile(m: int, n: int, k: int, *, residual: bool) -> tuple[int, ...]:
    constants = plan_linear_w8a8(m=m, n=n, k=k, arch=SM90, residual=residual).launches[0].constants
    return tuple(int(constants[name] or 0) for name in ("BLOCK_M", "BLOCK_N", "SECOND_N", "BLOCK_K"))


@pytest.mark.parametrize(
    ("m", "n", "k", "residual", "fastest"),
    [
        (2048, 1280, 1280, False, (128, 128, 32, 128)),
        (2048, 1280, 1280, True, (128, 128, 32, 128)),
        (2048, 1280, 5120, True, (128, 128, 32, 128)),
        (2048, 3840, 1280, False, (256, 128, 0, 64)),
        (8192, 640, 640, False, (256, 128, 32, 128)),
        (8192, 640, 640, True, (128, 64, 0, 128)),
        (8192, 640, 2560, True, (128, 128, 32, 128)),
        (8192, 1920, 640, False, (256, 128, 0, 64)),
    ],
)
def test_the_fastest_tile_of_every_measured_product(
    m: int, n: int, k: int, residual: bool, fastest: tuple[int, ...]
) -> None:
    assert tile(m, n, k, residual=residual) == fastest


def test_gated_products_take_the_faster_of_two() -> None:
    constants = plan_geglu_linear_w8a8(m=2048, n=5120, k=1280, arch=SM90).launches[0].constants
    assert (constants["BLOCK_M"], constants["BLOCK_N"], constants["BLOCK_K"]) == (128, 128, 64)


def test_a_tile_more_than_the_multiprocessors_hold_takes_another_round() -> None:
    config = {"BLOCK_M": 128, "BLOCK_N": 128, "SECOND_N": 32, "BLOCK_K": 128, "TILE_NS": 1000, "STEP_NS": 100}
    assert nanoseconds(config, 132, rows=132 * 128, n=160, k=256) == 1200
    assert nanoseconds(config, 132, rows=132 * 128 + 1, n=160, k=256) == 2400


def test_a_card_of_fewer_multiprocessors_takes_another_tile() -> None:
    """An H100 PCIe has 114, which are done sooner with 3840 columns by other tiles than the 132 of an SXM."""
    fewer = architecture(90, 114)
    asked = {"k": 1280, "n": 3840, "residual": 0, **KIND}
    assert lookup("linear_w8a8", fewer, 2048, **asked) != lookup("linear_w8a8", SM90, 2048, **asked)


@given(m=st.integers(1, 40_000), n=st.integers(1, 8000), k=depths, residual=st.booleans())
def test_no_alternative_takes_less(m: int, n: int, k: int, residual: bool) -> None:
    shape = {"k": k, "n": n, "residual": int(residual), **KIND}
    chosen = lookup("linear_w8a8", SM90, m, **shape)
    if "TILE_NS" in chosen:
        others = [row.config for row in every("linear_w8a8", 90, **shape) if "TILE_NS" in row.config]
        assert nanoseconds(chosen, 132, rows=m, n=n, k=k) == min(
            nanoseconds(config, 132, rows=m, n=n, k=k) for config in others
        )


@given(m=st.integers(1, 40_000), n=st.integers(1, 8000), k=depths, residual=st.booleans())
def test_any_depth_is_served_and_in_the_closed_set(m: int, n: int, k: int, residual: bool) -> None:
    plans = {
        "linear_w8a8": plan_linear_w8a8(m=m, n=n, k=k, arch=SM90, residual=residual),
        "geglu_linear_w8a8": plan_geglu_linear_w8a8(m=m, n=n, k=k, arch=SM90),
    }
    for op, plan in plans.items():
        shape = {"n": n, "k": k} | ({"residual": residual} if op == "linear_w8a8" else {})
        assert set(plan.variants) <= set(all_variants(op, shape, SM90))
        assert m <= 64 or plan.launches[0].constants["BLOCK_N"] != 64 or plan.launches[0].constants["BLOCK_M"] != 64


@pytest.mark.parametrize(("dtype", "out_dtype"), [("float8_e4m3fn", "float16"), ("int8", "float32")])
def test_float8_and_results_of_32_bits_keep_the_plain_kernel(dtype: str, out_dtype: str) -> None:
    for plan in (
        plan_linear_w8a8(m=2048, n=1280, k=1280, arch=SM90, dtype=dtype, out_dtype=out_dtype),
        plan_geglu_linear_w8a8(m=2048, n=1280, k=1280, arch=SM90, dtype=dtype, out_dtype=out_dtype),
    ):
        assert plan.launches[0].kernel.startswith("linear.")
