"""Rounded weights: what the numbers mean, no rule worse than rounding to nearest, and nothing breaks it."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from optimum.quanto import AbsmaxOptimizer, MaxOptimizer, qint4, qint8, quantize_weight

from pocketxl.export.quantize.formats import FLOAT16, FP8_TOKEN, W4, W4_HALVES, W8, W8A8_GROUP, Format, Weight
from pocketxl.export.quantize.grid import Grid
from pocketxl.export.quantize.rounding import kept_of, round_weight

from ...tolerances import FLOAT8_RELATIVE, W4_GAUSSIAN_ZERO
from .inputs import Floats, heavy, normal


def how(format: Format) -> Weight:
    assert format.weight is not None
    return format.weight


HOWS = (
    how(W8),
    how(W8A8_GROUP),
    how(W4),
    how(W4_HALVES),
    how(FP8_TOKEN),
    Weight(bits=8, granularity="tensor"),
    Weight(bits=8, kind="float", granularity="tensor"),
    Weight(bits=8, granularity="group", group=32, zero=True),
    Weight(bits=4),
    Weight(bits=4, granularity="group", group=128),
    Weight(bits=4, granularity="group", group=16, zero=True),
)


def relative(weight: Floats, rounded: Floats) -> float:
    """Relative squared error."""
    exact = weight.astype(np.float64)
    return float(np.square(rounded - exact).sum() / np.square(exact).sum())


def test_int8_is_optimum_quanto_s_on_tame_weights() -> None:
    weight = normal(32, 320)
    rounded = round_weight(weight, how(W8))
    source = torch.from_numpy(weight)
    scale = AbsmaxOptimizer()(source, qint8, axis=0)
    theirs = quantize_weight(source, qtype=qint8, axis=0, scale=scale, optimized=False)
    np.testing.assert_array_equal(rounded.data, theirs._data.numpy())
    np.testing.assert_array_equal(rounded.dequantized(), theirs.dequantize().numpy())


def test_scales_in_half_precision_are_halves_and_cost_tame_weights_nothing() -> None:
    """Down to weights of 2e-5; the scales of smaller ones have few bits, and the smallest there is below 1e-7."""
    weight = normal(16, 128) * np.float32(0.02)
    wide = Weight(bits=4, granularity="group", group=64)
    for size, most in ((1.0, 1.02), (1e-2, 1.05), (1e-3, 1.3)):
        rounded = round_weight(weight * np.float32(size), how(W4_HALVES))
        np.testing.assert_array_equal(rounded.scale, rounded.scale.astype(np.float16))
        exact = relative(weight * np.float32(size), round_weight(weight * np.float32(size), wide).dequantized())
        assert relative(weight * np.float32(size), rounded.dequantized()) < most * exact
    assert round_weight(np.zeros((2, 64), np.float32), how(W4_HALVES)).scale.min() == 2.0**-24


def test_e4m3_is_torch_s_and_the_largest_of_a_channel_is_exact() -> None:
    weight = normal(16, 100)
    rounded = round_weight(weight, how(FP8_TOKEN))
    np.testing.assert_array_equal(rounded.scale, np.abs(weight).max(1) / np.float32(448))
    theirs = (torch.from_numpy(weight) / torch.from_numpy(rounded.scale)[:, None]).to(torch.float8_e4m3fn)
    np.testing.assert_array_equal(rounded.data, theirs.view(torch.int8).numpy())
    off = np.abs(rounded.dequantized() - weight) / np.maximum(np.abs(weight), rounded.scale[:, None])
    assert off.max() <= FLOAT8_RELATIVE
    rows, columns = np.arange(16), np.abs(weight).argmax(1)
    np.testing.assert_allclose(rounded.dequantized()[rows, columns], weight[rows, columns], rtol=1e-6)


def test_data_scale_and_zero_have_the_shapes_and_kinds_that_targets_store() -> None:
    weight = normal(6, 100)
    for format, groups, data, zeros in (
        (how(W8), None, np.int8, False),
        (how(W8A8_GROUP), 2, np.int8, False),
        (how(W4), 2, np.uint8, True),
        (Weight(bits=4, granularity="group", group=32), 4, np.uint8, False),
        (how(FP8_TOKEN), None, np.int8, False),
        (Weight(bits=8, granularity="tensor"), None, np.int8, False),
    ):
        rounded = round_weight(weight, format)
        assert rounded.data.dtype == data
        assert rounded.data.shape == (6, 100)
        assert rounded.scale.dtype == np.float32
        assert rounded.scale.shape == ((6,) if groups is None else (6, groups))
        assert (rounded.scale > 0).all()
        assert (rounded.zero is not None) == zeros
        if rounded.zero is not None:
            assert rounded.zero.dtype == np.uint8
            assert rounded.zero.shape == rounded.scale.shape
        if format.bits == 4:
            assert rounded.data.max() <= 15
    assert len(set(round_weight(weight, Weight(bits=8, granularity="tensor")).scale)) == 1


def test_4_bits_lose_less_than_ranges_from_extremes_and_as_little_as_was_measured() -> None:
    """optimum-quanto's MaxOptimizer takes each group's extremes, with a zero point that need not be a whole step."""
    for weight in (normal(512, 640), heavy(512, 640)):
        groups = torch.from_numpy(weight.reshape(-1, 64))
        scale, shift = MaxOptimizer()(groups, qint4, axis=0)
        # Its operator alone: to take its packed tensors apart it compiles C++ first, for most of a minute.
        steps = torch.ops.quanto.quantize_affine(groups, 4, 0, None, scale, shift)
        theirs = (steps * scale - shift).numpy()
        ours = relative(weight, round_weight(weight, how(W4)).dequantized())
        assert ours < 0.96 * relative(weight.reshape(-1, 64), theirs)
    assert relative(normal(512, 640), round_weight(normal(512, 640), how(W4)).dequantized()) == pytest.approx(
        W4_GAUSSIAN_ZERO, rel=0.03
    )


def test_4_bit_groups_are_nearly_as_good_as_every_scale_and_zero_point_that_there_is() -> None:
    weight = heavy(24, 32, seed=1)
    best = np.full(24, np.inf)
    reach = np.abs(weight).max(1, keepdims=True).astype(np.float64)
    for zero in range(16):
        for share in np.geomspace(0.03, 1, 300):
            scale = reach * share
            steps = np.clip(np.rint(weight / scale), -zero, 15 - zero)
            best = np.minimum(best, np.square(steps * scale - weight).sum(1))
    ours = np.square(
        round_weight(weight, Weight(bits=4, granularity="group", group=32, zero=True)).dequantized() - weight
    )
    assert ours.sum() <= 1.06 * best.sum()


@pytest.mark.parametrize("width", [320, 5760, 23040])
def test_int8_rows_are_clipped_only_where_that_is_better(width: int) -> None:
    weight = heavy(16, width)
    usual = np.abs(weight).max(1) / np.float32(127)
    rounded = round_weight(weight, how(W8))
    clipped = rounded.scale < usual
    nearest = np.rint(weight / usual[:, None]) * usual[:, None]
    ours = np.square(rounded.dequantized() - weight).sum(1)
    theirs = np.square(nearest - weight).sum(1)
    np.testing.assert_array_equal(ours[~clipped], theirs[~clipped])
    assert (ours[clipped] < theirs[clipped]).all()
    assert clipped.any() == (width == 23040), "one extreme is worth clipping from about 10,000 numbers on"


@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("kind", ["normal", "heavy", "wild", "one extreme"])
def test_the_search_for_a_clipped_range_ends_early_and_finds_the_best_of_all(kind: str, weighed: bool) -> None:
    """Against every one of the ranges that it may choose, spelled out in float64."""
    weight = heavy(6, 40000) if kind == "heavy" else normal(6, 40000)
    if kind == "wild":
        weight = weight**5
    elif kind == "one extreme":
        weight[:, 7] = 40
    importance = np.exp(normal(1, 40000, seed=1)) if weighed else np.ones((1, 40000), np.float32)
    scale, _ = Grid.of(how(W8)).fit(torch.from_numpy(weight), torch.from_numpy(importance) if weighed else None)
    exact = weight.astype(np.float64)

    def error(step: NDArray[np.float64]) -> NDArray[np.float64]:
        off = np.clip(np.rint(exact / step), -127, 127) * step - exact
        found: NDArray[np.float64] = (np.square(off) * importance).sum(1)
        return found

    holding = np.abs(exact).max(1, keepdims=True) / 127
    every = np.stack([error(holding * 0.9**i) for i in range(19)])
    ours = error(scale.double().numpy())
    # Where the first share that is tried does not pay by the rule of thumb, the range is that of the extremes.
    np.testing.assert_allclose(ours, np.where(scale[:, 0].numpy() < 0.99 * holding[:, 0], every.min(0), every[0]), 1e-5)
    assert (ours <= 1.01 * every.min(0)).all()
    assert every.argmin(0).max() > 1 or kind in ("normal", "wild"), "a long search"


@settings(max_examples=60, deadline=None)
@given(
    which=st.sampled_from(HOWS),
    out=st.integers(1, 5),
    width=st.integers(1, 150),
    power=st.integers(-12, 15),
    seed=st.integers(0, 99),
    holes=st.booleans(),
)
@example(which=how(W4), out=2, width=65, power=15, seed=0, holes=True)
@example(which=how(W8), out=1, width=1, power=-12, seed=0, holes=False)
def test_no_number_is_off_by_more_than_what_its_step_and_clipping_explain(
    which: Weight, out: int, width: int, power: int, seed: int, holes: bool
) -> None:
    weight = (heavy(out, width, seed=seed) * np.float32(2.0**power)).clip(-65504, 65504)
    if holes:
        weight[0] = 0
        weight[-1, : width // 2] = np.float32(1e-42)
    rounded = round_weight(weight, which)
    kept = rounded.dequantized()
    assert kept.shape == weight.shape
    assert kept.dtype == np.float32
    assert np.isfinite(kept).all()
    assert (kept[weight == 0] == 0).all(), "0 stays exactly 0"
    if which.kind == "float":
        assert (np.abs(kept - weight) <= FLOAT8_RELATIVE * np.abs(weight) + rounded.scale[:, None] * 2**-9).all()
        return
    # Not worse than a plain range with room for every number, whose error is half a step of it at most.
    group = which.group or width
    levels = 14 if which.bits == 4 else 254
    for at in range(0, width, group) if which.granularity != "tensor" else []:
        part, left = weight[:, at : at + group], kept[:, at : at + group]
        step = 2 * np.abs(part).max(1) / levels
        assert (np.square(left - part).sum(1) <= (step * 0.5001) ** 2 * part.shape[1] + 1e-24).all()


@pytest.mark.parametrize("which", HOWS)
@pytest.mark.parametrize("value", [1.0, -0.3, 65504.0, -65504.0])
def test_constant_weights_are_exact(which: Weight, value: float) -> None:
    weight = np.full((3, 70), value, np.float32)
    tolerance = 2.0**-11 if which.scale_bits == 16 else 1e-6  # that of the scale
    np.testing.assert_allclose(round_weight(weight, which).dequantized(), weight, rtol=tolerance)


@pytest.mark.parametrize("which", HOWS, ids=str)
def test_what_is_left_can_be_had_without_the_bytes(which: Weight) -> None:
    weight = heavy(7, 230)
    np.testing.assert_array_equal(kept_of(weight, which), round_weight(weight, which).dequantized())


def test_the_caller_s_weight_is_not_written_to() -> None:
    weight = normal(4, 128)
    before = weight.copy()
    for which in HOWS:
        round_weight(weight, which)
        kept_of(weight, which)
    np.testing.assert_array_equal(weight, before)


def test_what_is_no_rounding_or_no_matrix_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be rounded to wf16; integers have 4 or 8 bits"):
        round_weight(normal(2, 2), how(FLOAT16))
    for bad in (normal(2, 2, 2), np.zeros((0, 4), np.float32)):
        with pytest.raises(ValueError, match="weight must be a matrix with numbers in it"):
            round_weight(bad, how(W8))
    for value in (np.inf, -np.inf, np.nan, 1e16):
        bad = normal(3, 4)
        bad[1, 2] = value
        with pytest.raises(ValueError, match="weight must be finite and at most 1e"):
            round_weight(bad, how(W8))
        with pytest.raises(ValueError, match="inputs must be finite and at most 1e"):
            round_weight(normal(3, 4), how(W8), inputs=bad)
    with pytest.raises(ValueError, match="same last axis"):
        round_weight(normal(2, 8), how(W8), inputs=normal(3, 7))
