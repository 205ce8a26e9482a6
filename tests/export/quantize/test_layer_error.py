"""The error of a layer in a format, against the same arithmetic spelled out; what costs which format most."""

import numpy as np
import pytest
import torch

from pocketxl.export.quantize.formats import (
    FLOAT16,
    FP8_TENSOR,
    FP8_TOKEN,
    KEEP,
    W4,
    W4A8,
    W8,
    W8A8_DYNAMIC,
    W8A8_GROUP,
    W8A8_SIGNED,
    W8A8_STATIC,
    W8A8_TOKEN,
    Format,
)
from pocketxl.export.quantize.input_rounding import round_inputs
from pocketxl.export.quantize.layer_error import layer_error
from pocketxl.export.quantize.rounding import round_weight

from ...tolerances import INT8_LAYER_RELATIVE
from .inputs import Floats, normal


def off(weight: Floats, inputs: Floats, format: Format) -> float:
    squared, reference = layer_error(weight, inputs, format)
    return float((squared / reference) ** 0.5)


@pytest.mark.parametrize(
    "format", [W8, W4, W4A8, W8A8_DYNAMIC, W8A8_TOKEN, W8A8_GROUP, W8A8_SIGNED, FP8_TENSOR, FP8_TOKEN]
)
def test_error_is_that_of_the_product_of_both_rounded(format: Format) -> None:
    weight, inputs = normal(24, 160), normal(50, 160, seed=1)
    assert format.weight is not None
    numbers = round_weight(weight, format.weight)
    kept = inputs
    if format.activation is not None:
        amax = float(np.abs(inputs).max())
        scale = amax / 127 if format.activation.signed else None
        kept = round_inputs(inputs, format.activation, group=format.weight.group, amax=amax, scale=scale)
    exact = inputs.astype(np.float64) @ weight.T.astype(np.float64)
    product = kept.astype(np.float64) @ numbers.dequantized().T.astype(np.float64)
    squared, reference = layer_error(weight, inputs, format)
    assert squared == pytest.approx(np.square(product - exact).sum(), rel=1e-3)
    assert reference == pytest.approx(np.square(exact).sum(), rel=1e-5)
    assert layer_error(weight, inputs, format, rounded=numbers) == (squared, reference)


def test_tame_layers_are_off_by_what_8_bits_cost() -> None:
    weight, inputs = normal(320, 320), normal(150, 320, seed=1)
    for format in (W8, W8A8_DYNAMIC, W8A8_TOKEN, W8A8_GROUP, W8A8_STATIC, W8A8_SIGNED):
        assert off(weight, inputs, format) < INT8_LAYER_RELATIVE


def test_outlier_channels_cost_a_tensor_s_range_most_and_a_static_scale_for_each_nothing() -> None:
    weight, inputs = normal(320, 320), normal(150, 320, seed=1)
    few = np.arange(0, 320, 100)
    weight[:, few] /= 30
    inputs[:, few] *= 30
    tensor, token, group, channel = (
        off(weight, inputs, format) for format in (W8A8_DYNAMIC, W8A8_TOKEN, W8A8_GROUP, W8A8_STATIC)
    )
    assert tensor > 0.1
    assert group < 0.7 * token < token < tensor
    assert channel < INT8_LAYER_RELATIVE


def test_what_is_no_rounding_is_refused() -> None:
    for format in (KEEP, FLOAT16):
        with pytest.raises(ValueError, match="only one with a scale rounds a layer"):
            layer_error(normal(4, 4), normal(4, 4), format)


def test_a_product_that_is_known_saves_nothing_but_time() -> None:
    weight, inputs = normal(24, 160), normal(50, 160, seed=1)
    exact = torch.from_numpy(inputs @ weight.T)
    before = exact.clone()
    for format in (W8A8_DYNAMIC, W8A8_STATIC, W4):
        assert layer_error(weight, inputs, format, exact=exact) == pytest.approx(layer_error(weight, inputs, format))
    assert torch.equal(exact, before)
