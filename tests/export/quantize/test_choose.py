"""Which numbers a component gets: the recipe's own where they do, others where they do not, and what that costs."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pocketxl.engine.specs import Role
from pocketxl.export.quantize.calibration import Calibration
from pocketxl.export.quantize.choose import Layer, Measured, choose, measure_layers
from pocketxl.export.quantize.formats import (
    FLOAT32,
    FP8_TOKEN,
    W4,
    W8,
    W8A8_DYNAMIC,
    W8A8_GROUP,
    W8A8_SIGNED,
    W8A8_STATIC,
    W8A8_TOKEN,
    Kind,
)
from pocketxl.export.quantize.quantization import Quantization
from pocketxl.export.quantize.recipes import RECIPES, Recipe, Rule
from pocketxl.export.targets.cpu.target import CpuTarget

from ...fixtures.calibration import shown

WIDTH, TOKENS = 128, 96
INT8, INT4 = RECIPES["int8"], RECIPES["int4-weight"]


def network(outlier: float = 1.0, layers: int = 4) -> tuple[dict[str, np.ndarray], Calibration]:
    """Linear layers, the last of which reads one token that is `outlier` times as large."""
    random = np.random.default_rng(0)
    weights, seen = {}, {}
    for index in range(layers):
        name = f"mid_block.attentions.0.transformer_blocks.{index}.attn1.to_q"
        weights[f"{name}.weight"] = random.standard_normal((WIDTH, WIDTH), np.float32)
        x = random.standard_normal((TOKENS, WIDTH), np.float32)
        if index == layers - 1:
            x[7] *= outlier
        seen[name] = shown(x, x @ weights[f"{name}.weight"].T)
    return weights, Calibration(layers=seen)


def measured(weights: dict[str, np.ndarray], seen: Calibration, recipe: Recipe = INT8, target: Any = None) -> Measured:
    layers = [Layer(name=n.removesuffix(".weight"), kind=Kind.LINEAR, shape=w.shape) for n, w in weights.items()]
    return measure_layers(layers, recipe, Role.UNET, weights.get, seen, target or CpuTarget())


def formats(numbers: Quantization) -> list[str]:
    return [str(format) for format in numbers.assigned.values()]


def test_where_the_goal_holds_every_layer_has_the_recipes_own_format() -> None:
    weights, seen = network()
    found = measured(weights, seen)
    numbers = choose(found, INT8, Role.UNET, seen, goal=0.05)
    assert set(numbers.assigned.values()) == {W8A8_DYNAMIC}
    assert found.more_bits(numbers) == {}
    assert 0 < found.estimate(numbers) < 0.05
    assert not numbers.inputs, "8 bits of linear layers are rounded to nearest"


def test_a_layer_with_an_outlier_token_gets_a_range_for_each_token_and_the_others_nothing() -> None:
    weights, seen = network(outlier=100)
    found = measured(weights, seen)
    lenient = replace(INT8, max_relative_error={**INT8.max_relative_error, Role.UNET: 10.0})
    first = choose(found, lenient, Role.UNET, seen, goal=10.0)
    *_, last = weights
    assert found.errors(first)[0].layer == last.removesuffix(".weight")
    numbers = choose(found, INT8, Role.UNET, seen, goal=0.05)
    assert list(numbers.assigned.values()) == [W8A8_DYNAMIC] * 3 + [W8A8_TOKEN]
    assert found.estimate(numbers) < 0.05 < found.estimate(first)
    cost = found.more_bits(numbers)
    assert (cost["layers"], cost["bytes"]) == (1, 0)
    assert cost["time"] == pytest.approx((CpuTarget().pace[W8A8_TOKEN] - 1) / 4)


def test_a_goal_that_only_floats_reach_is_reached_by_floats() -> None:
    weights, seen = network(outlier=100)
    found = measured(weights, seen)
    numbers = choose(found, INT8, Role.UNET, seen, goal=1e-9)
    assert set(numbers.assigned.values()) == {FLOAT32}
    assert found.exhausted(numbers)
    assert found.estimate(numbers) == 0
    assert not found.exhausted(choose(found, INT8, Role.UNET, seen, goal=1.0))


def test_a_target_is_only_asked_for_what_it_can_do() -> None:
    weights, seen = network(outlier=100)

    class Less(CpuTarget):
        formats = {Kind.LINEAR: frozenset({W8A8_DYNAMIC, W8A8_GROUP})}  # noqa: RUF012
        pace = {W8A8_DYNAMIC: 1.0, W8A8_GROUP: 3.0}  # noqa: RUF012

    found = measured(weights, seen, target=Less)
    assert {option.format for options in found.options.values() for option in options} == {W8A8_DYNAMIC, W8A8_GROUP}


def test_strict_leaves_no_choice() -> None:
    weights, seen = network(outlier=100)
    strict = replace(INT8, ladder={})
    found = measured(weights, seen, strict)
    numbers = choose(found, strict, Role.UNET, seen, goal=1e-9)
    assert set(numbers.assigned.values()) == {W8A8_DYNAMIC}
    assert found.exhausted(numbers)


def test_without_the_ladder_only_the_recipes_own_format_is_measured() -> None:
    weights, seen = network()
    layers = [Layer(name=n.removesuffix(".weight"), kind=Kind.LINEAR, shape=w.shape) for n, w in weights.items()]
    few = measure_layers(layers, INT8, Role.UNET, weights.get, seen, CpuTarget(), ladder=False)
    whole = measured(weights, seen)
    assert {name: options[:1] for name, options in whole.options.items()} == few.options


def test_a_layer_of_a_unet_that_takes_half_of_the_goal_alone_gets_more_bits_and_no_other_is_measured() -> None:
    weights, seen = network(outlier=100)
    layers = [Layer(name=n.removesuffix(".weight"), kind=Kind.LINEAR, shape=w.shape) for n, w in weights.items()]
    few = measure_layers(layers, INT8, Role.UNET, weights.get, seen, CpuTarget(), ladder=False)
    assert [len(options) for options in few.options.values()] == [1, 1, 1, 2], "on to the first that is good enough"
    numbers = choose(few, INT8, Role.UNET, seen, goal=10.0)
    assert list(numbers.assigned.values()) == [W8A8_DYNAMIC] * 3 + [W8A8_TOKEN]
    assert few.more_bits(numbers)["layers"] == 1
    strict = replace(INT8, ladder={})
    only = measure_layers(layers, strict, Role.UNET, weights.get, seen, CpuTarget(), ladder=False)
    assert set(choose(only, strict, Role.UNET, seen, goal=10.0).assigned.values()) == {W8A8_DYNAMIC}


def test_8_bit_floats_make_up_for_their_errors() -> None:
    weights, seen = network()
    rules = (Rule(kind=Kind.LINEAR, pattern=".*", format=FP8_TOKEN),)
    recipe = replace(INT8, rules={Role.UNET: rules}, ladder={})
    numbers = choose(measured(weights, seen, recipe), recipe, Role.UNET, seen, goal=1.0)
    assert set(numbers.inputs) == set(numbers.assigned)


@pytest.mark.parametrize("bits", [4.6, 5.0, 6.5, 9.0])
def test_a_mean_of_bits_is_kept_and_what_fits_goes_where_it_helps_most(bits: float) -> None:
    weights, seen = network(outlier=100)
    recipe = replace(INT4, bits={Role.UNET: bits})
    found = measured(weights, seen, recipe)
    numbers = choose(found, recipe, Role.UNET, seen, goal=0.0)
    stored = [numbers.assigned[name.removesuffix(".weight")].weight for name in weights]
    used = sum(how.bytes_of(w.shape) for how, w in zip(stored, weights.values(), strict=True) if how is not None)
    mean = 8 * used / sum(w.size for w in weights.values())
    assert mean <= bits
    assert set(numbers.assigned.values()) <= {W4, W8, FLOAT32}
    assert (W8 in numbers.assigned.values()) == (bits > 4.57 + (8.25 - 4.57) / 4)
    assert set(numbers.inputs) == {name for name, format in numbers.assigned.items() if format == W4}
    assert found.exhausted(numbers), "a budget is not tried again"


def test_a_layer_whose_input_is_int8_around_0_has_a_range_too() -> None:
    """By the estimate it is off by what its error is with that range."""
    weights, seen = network()
    recipe = INT8.with_formats({Kind.LINEAR: {W8A8_DYNAMIC: W8A8_SIGNED}})
    target = CpuTarget(formats={Kind.LINEAR: frozenset({W8A8_SIGNED, W8, FLOAT32})})
    found = measured(weights, seen, recipe, target)
    numbers = choose(found, recipe, Role.UNET, seen, goal=1.0)
    assert set(numbers.assigned.values()) == {W8A8_SIGNED}
    assert {f"{name}.weight" for name in numbers.input_scales} == set(weights)
    errors = {one.layer: one.relative_error for one in found.errors(numbers)}
    assert all(0 < error < 0.1 for error in errors.values())


def test_convolutions_have_ranges_only_where_they_use_them() -> None:
    random = np.random.default_rng(1)
    weight = random.standard_normal((8, 4, 3, 3)).astype(np.float32)
    x = random.standard_normal((40, 36)).astype(np.float32)
    layer = shown(x, x @ weight.reshape(8, -1).T)
    channels = x.reshape(40, 4, 9)
    layer = replace(layer, input_lows=channels.min((0, 2))[None], input_highs=channels.max((0, 2))[None])
    name = "down_blocks.0.resnets.0.conv1"
    seen = Calibration(layers={name: layer})
    weights = {f"{name}.weight": weight}
    found = measure_layers(
        [Layer(name=name, kind=Kind.CONV, shape=weight.shape)], INT8, Role.UNET, weights.get, seen, CpuTarget()
    )
    assert [option.format for option in found.options[name]] == [W8A8_STATIC, W8, FLOAT32]
    numbers = choose(found, INT8, Role.UNET, seen, goal=1.0)
    assert (set(numbers.ranges), set(numbers.inputs)) == ({name}, {name}), "taps make up for each other's rounding"
    floats = choose(found, INT8, Role.UNET, seen, goal=0.0)
    assert (floats.assigned[name], dict(floats.ranges), dict(floats.inputs)) == (FLOAT32, {}, {})
