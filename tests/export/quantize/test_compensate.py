"""Rounding for the product: GPTQ to the letter, better than the nearest where inputs allow it, and never worse."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pocketxl.export.quantize.compensate import compensated, importance_of
from pocketxl.export.quantize.formats import FP8_TOKEN, W4, W8, W8A8_GROUP, Format, Weight
from pocketxl.export.quantize.grid import Grid
from pocketxl.export.quantize.nearest import plain, rounded
from pocketxl.export.quantize.rounding import round_weight

from .inputs import Floats, correlated, heavy, normal, product_error, with_outliers


def how(format: Format) -> Weight:
    assert format.weight is not None
    return format.weight


def textbook(weight: Floats, scale: Floats, inputs: Floats, damping: float) -> NDArray[np.float64]:
    """GPTQ as it is published, int8 per channel, in float64 with the whole matrix of second moments inverted."""
    spread = np.sqrt(importance_of(torch.from_numpy(inputs)).double().numpy() * len(inputs))
    x = inputs.astype(np.float64)
    moments = x.T @ x + damping * np.diag(spread**2)
    factor = np.linalg.cholesky(np.linalg.inv(moments)).T
    left, data = weight.astype(np.float64), np.empty(weight.shape)
    for column in range(weight.shape[1]):
        data[:, column] = np.clip(np.rint(left[:, column] / scale), -127, 127)
        error = (left[:, column] - data[:, column] * scale) / factor[column, column]
        left[:, column:] -= error[:, None] * factor[column, column:]
    return data


@pytest.mark.parametrize(("rows", "damping"), [(40, 0.5), (40, 5.0), (400, 0.05)])
def test_it_is_gptq_without_its_large_matrix(rows: int, damping: float) -> None:
    weight, inputs = normal(24, 200), with_outliers(correlated(rows, 200, seed=1))
    grid = Grid.of(how(W8))
    data, scale, _ = compensated(torch.from_numpy(weight), how(W8), grid, torch.from_numpy(inputs), damping)
    theirs = textbook(weight, scale[:, 0].numpy(), inputs, damping)
    # A number between two steps may round either way in float32, and those behind it follow.
    assert np.mean(data.numpy() == theirs) > 0.98
    ours, exact = (
        product_error(weight, (d * scale.numpy()).astype(np.float32), inputs) for d in (data.numpy(), theirs)
    )
    assert ours == pytest.approx(exact, rel=0.01)
    nearest, *_ = plain(torch.from_numpy(weight), how(W8), grid)
    assert np.mean(nearest.numpy() == theirs) < 0.9, "the oracle is no rounding to nearest"


@pytest.mark.parametrize("weight", [normal(96, 640), heavy(96, 640)], ids=["normal", "heavy"])
@pytest.mark.parametrize(
    ("format", "outliers", "share"),
    # Of the error on unseen rows that rounding to nearest has: measured, and a tenth more.
    [
        (W4, False, 0.64),
        (W4, True, 0.41),
        (W8, False, 0.67),
        (W8, True, 0.69),
        (FP8_TOKEN, True, 0.69),
        (W8A8_GROUP, True, 0.69),
    ],
)
def test_on_correlated_inputs_the_product_is_far_better_on_unseen_rows(
    weight: Floats, format: Format, outliers: bool, share: float
) -> None:
    seen, unseen = correlated(192, 640, seed=1), correlated(300, 640, seed=2)
    if outliers:
        seen, unseen = with_outliers(seen), with_outliers(unseen)
    nearest = product_error(weight, round_weight(weight, how(format)).dequantized(), unseen)
    ours = product_error(weight, round_weight(weight, how(format), inputs=seen).dequantized(), unseen)
    assert ours < share * nearest


@pytest.mark.parametrize("format", [W4, W8, FP8_TOKEN])
@pytest.mark.parametrize("rows", [5, 16, 40, 192])
def test_on_inputs_that_have_nothing_in_common_it_is_not_worse_than_the_nearest(format: Format, rows: int) -> None:
    weight, unseen = normal(96, 320), normal(300, 320, seed=2)
    nearest = product_error(weight, round_weight(weight, how(format)).dequantized(), unseen)
    ours = product_error(
        weight, round_weight(weight, how(format), inputs=normal(rows, 320, seed=1)).dequantized(), unseen
    )
    assert ours <= 1.01 * nearest


def test_a_few_rows_decide_nothing() -> None:
    weight = normal(8, 64)
    few = round_weight(weight, how(W4), inputs=correlated(15, 64, seed=1))
    np.testing.assert_array_equal(few.data, round_weight(weight, how(W4)).data)


@settings(max_examples=40, deadline=None)
@given(
    format=st.sampled_from([W4, W8, W8A8_GROUP, FP8_TOKEN]),
    out=st.integers(1, 4),
    width=st.integers(1, 150),
    rows=st.integers(1, 30),
    power=st.integers(-130, 15),
    kind=st.sampled_from(["normal", "zeros", "constant", "one column", "alike"]),
)
def test_no_inputs_break_it(format: Format, out: int, width: int, rows: int, power: int, kind: str) -> None:
    weight, inputs = heavy(out, width), normal(rows, width, seed=1)
    if kind == "zeros":
        inputs[:] = 0
    elif kind == "constant":
        inputs[:] = 1
    elif kind == "one column":
        inputs[:, 1:] = 0
    elif kind == "alike":
        inputs[:] = inputs[0]
    inputs = (inputs * np.float64(2.0) ** power).clip(-65504, 65504).astype(np.float32)
    grid = Grid.of(how(format))
    for damping in (0.5, 3.0):
        numbers = compensated(
            torch.from_numpy(weight),
            how(format),
            grid,
            torch.from_numpy(inputs / max(float(np.abs(inputs).max()), 1e-30)),
            damping,
        )
        assert np.isfinite(rounded(grid, how(format), *numbers).dequantized()).all()
    assert np.isfinite(round_weight(weight, how(format), inputs=inputs).dequantized()).all()


@pytest.mark.parametrize("factor", [2.0**-90, 2.0**40])
def test_only_proportions_of_inputs_matter(factor: float) -> None:
    weight, inputs = normal(16, 128), correlated(64, 128, seed=1)
    usual = round_weight(weight, how(W4), inputs=inputs)
    scaled = round_weight(weight, how(W4), inputs=inputs * np.float32(factor))
    np.testing.assert_array_equal(usual.data, scaled.data)
    assert (usual.data != round_weight(weight, how(W4)).data).any()


def test_inputs_and_weight_of_the_caller_are_not_written_to() -> None:
    weight, inputs = normal(8, 128), correlated(64, 128, seed=1)
    before = weight.copy(), inputs.copy()
    round_weight(weight, how(W4), inputs=inputs)
    np.testing.assert_array_equal(weight, before[0])
    np.testing.assert_array_equal(inputs, before[1])
