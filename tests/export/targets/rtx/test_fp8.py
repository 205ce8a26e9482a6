"""e4m3 × e4m3 of an `rtx` engine: the format's numbers, what the program makes of it, and what no numbers overflow."""

from collections import Counter
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pocketxl.engine.compiled.program import Compiled
from pocketxl.engine.errors import RequestError
from pocketxl.export.graph.master import attach, export_master
from pocketxl.export.quantize.formats import FP8_TENSOR, W8A8_SIGNED, Kind
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.quantize.rounding import round_weight
from pocketxl.export.targets import TARGETS
from pocketxl.export.targets.check import check, fitted
from pocketxl.export.targets.rtx.eight_bits import weight_scale
from pocketxl.export.targets.rtx.fp8 import E4M3, fp8
from pocketxl.export.targets.rtx.groups import TOGETHER, able

from ....fixtures.onnx_run import StateDict
from ....tolerances import HALF_RELATIVE, RECIPE_RELATIVE
from ..cpu.lowering import all_as, image_spec, token_spec
from .calibrated import Measured, measured_unet
from .test_int8 import HALF_MAX, OUT, WIDTH, answer, single
from .test_weight_only import Cast
from .trap import trap

CARDS = ("sm89", "sm120", "sm121")


def lowered(kind: Kind, module: Cast, step: float) -> ir.Model:
    spec = token_spec(WIDTH, OUT) if kind is Kind.LINEAR else image_spec(WIDTH, OUT)
    model = export_master("unet", lambda: single(kind), spec, dtype=torch.float16)
    attach(model, StateDict(module.state_dict()))
    fp8(model.graph, all_as(kind, FP8_TENSOR, input_scales={"layer": np.full(WIDTH, step, np.float32)}))
    return model


def e4m3(x: np.ndarray, step: float) -> np.ndarray:
    """By another library's arithmetic; its conversion makes NaN of what is too large."""
    return (x / step).clip(-448, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * np.float32(step)


def simulated(kind: Kind, module: Cast, x: np.ndarray, step: float) -> np.ndarray:
    """Inputs and weights of 8 bits, everything else in float32."""
    assert FP8_TENSOR.weight is not None
    weight = module.layer.weight.half().float()
    scale = weight.flatten(1).abs().amax(1).numpy() / np.float32(448)
    numbers = (weight.flatten(1).numpy() / scale[:, None]).astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
    exact = single(kind)
    exact.layer.weight.copy_(torch.from_numpy(numbers * scale[:, None]).view_as(weight))
    exact.layer.bias.copy_(module.layer.bias.half().float())
    y: np.ndarray = exact(torch.from_numpy(e4m3(x, step))).numpy()
    return y


def off(kind: Kind, y: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Relative error of each output channel."""
    axis = (0, 1) if kind is Kind.LINEAR else (0, 2, 3)
    found: np.ndarray = np.sqrt(np.square(y - expected).sum(axis) / np.square(expected).sum(axis))
    return found


def sample(kind: Kind) -> np.ndarray:
    shape = (2, 9, WIDTH) if kind is Kind.LINEAR else (2, WIDTH, 8, 8)
    return np.random.default_rng(0).standard_normal(shape).astype(np.float16).astype(np.float32)


@pytest.mark.parametrize("kind", [Kind.LINEAR, Kind.CONV])
def test_every_channel_has_the_format_s_numbers(kind: Kind) -> None:
    """Of small rows too: a channel of 1/300 of the others' size is off by as much, relative to itself."""
    x, module = sample(kind), single(kind)
    module.layer.bias.zero_()
    step = 2.0**-8
    assert (np.abs(x) > 448 * step).any(), "some inputs lie outside"
    assert off(kind, answer(lowered(kind, module, step), x), simulated(kind, module, x, step)).max() < HALF_RELATIVE


@pytest.mark.parametrize("kind", [Kind.LINEAR, Kind.CONV])
def test_channels_that_are_100_times_as_large_take_nothing_from_the_others(kind: Kind) -> None:
    """In the weights, where each has its scale, and in the inputs, where one scale serves all."""
    x, module = sample(kind), single(kind)
    weight = module.layer.weight
    module.layer.bias.zero_()
    alike = off(kind, answer(lowered(kind, module, 2.0**-6), x), module(torch.from_numpy(x)).numpy())
    large = np.ones(WIDTH, np.float32)
    large[::16] = 100
    wide = x * (large if kind is Kind.LINEAR else large[:, None, None])
    weight[::8] *= 100
    weight /= torch.from_numpy(large).view(1, -1, *[1] * (weight.dim() - 2))
    errors = off(kind, answer(lowered(kind, module, 2.0), wide), module(torch.from_numpy(wide)).numpy())
    assert 0.03 < alike.mean() < 0.045, "3 bits of either factor: 2.6 % each"
    assert errors.mean() < 1.1 * alike.mean()
    assert errors.max() < 1.5 * alike.max()


@pytest.mark.parametrize("kind", [Kind.LINEAR, Kind.CONV])
def test_inputs_of_tens_of_thousands_are_cut_off_and_make_no_infinity(kind: Kind) -> None:
    x, module = sample(kind), single(kind)
    x = (x * 2e4).clip(-HALF_MAX, HALF_MAX).astype(np.float16).astype(np.float32)
    step = 2.0**5  # of a run that has seen 4,000 to 7,000
    y = answer(lowered(kind, module, step), x)
    assert np.isfinite(y).all()
    module.layer.bias.zero_()
    assert off(kind, answer(lowered(kind, module, step), x), simulated(kind, module, x, step)).max() < HALF_RELATIVE


@given(
    width=st.sampled_from([4, 64, 640, 1280, 5120, 11520, 23040]),
    exponent=st.integers(-14, 9),
)
def test_no_numbers_make_a_sum_that_halves_do_not_hold(width: int, exponent: int) -> None:
    step = 2.0**exponent
    scale = weight_scale(E4M3, width, step)
    assert np.float16(scale) == scale > 0, "exact in half precision"
    largest = min(448, HALF_MAX / step) * 448 * width * step * scale
    assert largest < 0.75 * HALF_MAX
    if 2.0**-24 < scale < 2.0**15:
        assert E4M3.largest_sum / 2 < 448 * 448 * width * step * scale <= E4M3.largest_sum


def test_factors_stay_in_half_s_range_whatever_the_weights_are() -> None:
    module = single(Kind.LINEAR)
    module.layer.weight *= 6e4
    factors = lowered(Kind.LINEAR, module, 2.0**9).graph.initializers["layer.weight_channels"].const_value
    assert factors is not None
    assert 0 < factors.numpy().min() < factors.numpy().max() <= HALF_MAX


def test_a_layer_that_was_not_watched_is_named() -> None:
    model = export_master("unet", lambda: single(Kind.LINEAR), token_spec(WIDTH, OUT), dtype=torch.float16)
    with pytest.raises(ValueError, match="layer has no calibrated scale"):
        fp8(model.graph, all_as(Kind.LINEAR, FP8_TENSOR))


def test_layers_of_other_8_bit_numbers_are_left_alone() -> None:
    module = single(Kind.LINEAR)
    model = export_master("unet", lambda: single(Kind.LINEAR), token_spec(WIDTH, OUT), dtype=torch.float16)
    attach(model, StateDict(module.state_dict()))
    fp8(model.graph, all_as(Kind.LINEAR, W8A8_SIGNED, input_scales={"layer": np.ones(WIDTH, np.float32)}))
    assert not [node for node in model.graph if node.op_type == "QuantizeLinear"]


@pytest.mark.parametrize("target", ["rtx-sm75", "rtx-sm80", "rtx-sm86"])
def test_cards_without_8_bit_floats_are_refused_before_any_work(target: str) -> None:
    says = rf"^target {target} cannot do recipe 'fp8', which needs linear {FP8_TENSOR}, .*: choose one of fp16, int8, "
    with pytest.raises(RequestError, match=says):
        check(TARGETS[target], RECIPES["fp8"])


def test_an_engine_for_several_cards_is_for_those_that_have_the_recipe_s_formats() -> None:
    for target, cards in (("rtx", CARDS), *((f"rtx-{card}", (card,)) for card in CARDS)):
        check(TARGETS[target], RECIPES["fp8"])
        assert able(TARGETS[target].architectures, fitted(RECIPES["fp8"], TARGETS[target])) == cards  # type: ignore[attr-defined]
    for recipe in ("fp16", "int8", "int8-weight", "int4-weight"):
        assert able(TOGETHER, fitted(RECIPES[recipe], TARGETS["rtx"])) == TOGETHER


def overflowing(compiled: Compiled) -> list[str]:
    """Matrix products of e4m3 whose sums can leave half precision before they are scaled."""
    return [
        p.name
        for p in compiled.products
        if p.kind == "fully_connected"
        and p.factors == ("fp8_e4m3", "fp8_e4m3")
        and (p.alpha is None or p.width is None or 448 * 448 * p.width * p.alpha > HALF_MAX)
    ]


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    pytest.importorskip("tensorrt_rtx")
    return measured_unet("fp8", tmp_path_factory.mktemp("unet"))


def test_a_unet_s_products_are_of_8_bit_floats_but_those_that_the_recipe_keeps(unet: Measured) -> None:
    compiled = unet.built.compiled
    assert compiled.architectures == CARDS
    floats = [p for p in compiled.products if p.factors != ("fp8_e4m3", "fp8_e4m3")]
    assert {p.factors for p in floats} == {("half", "half")}
    kept = {
        name
        for name, kind in unet.layers.items()
        if kind is not Kind.ATTENTION and unet.numbers.format(kind, name) != FP8_TENSOR
    }
    assert {p.name.removesuffix("/Conv") for p in floats} == kept
    assert {unet.layers[name] for name in kept} == {Kind.CONV}, "of the linear layers none"
    assert {(p.kind, p.result) for p in compiled.products if p not in floats} == {
        ("corrltn", "half"),
        ("fully_connected", "half"),
    }
    assert compiled.constants["fp8_e4m3"] > 0.8 * unet.weights


def test_rounding_is_part_of_the_kernels_before(unet: Measured) -> None:
    """The last norm's convolution is in halves."""
    kernels = unet.built.compiled.kernels
    assert kernels["SiluMulCastGnor"] == 16
    assert kernels["SiluGnor"] == 1
    assert not {"CastSilu", "CastGnor", "MulCast"} & set(kernels)
    assert kernels["MulCastResh"] == 4, "what is read by proj_in: a norm without SiLU, and then in tokens"


def test_self_attention_is_one_kernel_of_8_bit_floats_and_cross_attention_one_of_halves(unet: Measured) -> None:
    compiled = unet.built.compiled
    assert compiled.attentions == 8
    assert compiled.attention_factors == Counter({("fp8_e4m3",) * 3: 4, ("half",) * 3: 4})
    assert compiled.kernels["MulCastReshTranReshMove"] == 12, "queries, keys and values are rounded on their way"


def test_no_product_writes_raw_sums(unet: Measured) -> None:
    assert not overflowing(unet.built.compiled)


def test_scales_for_channels_would_be_seen(tmp_path: Path) -> None:
    """The trap itself: what the test before would say of a lowering that fell into it."""
    pytest.importorskip("tensorrt_rtx")
    numbers = np.random.default_rng(0).standard_normal((WIDTH, OUT)).astype(ml_dtypes.float8_e4m3fn)
    assert overflowing(trap(tmp_path, numbers)) == ["trap"]


def test_the_stand_in_is_within_the_recipe_s_limit(unet: Measured) -> None:
    assert 1e-2 < unet.figures.relative_error < RECIPE_RELATIVE["fp8"], "quantizing is not free"


def test_the_working_memory_is_read_from_the_program(unet: Measured) -> None:
    """A type whose size is not known would leave it to a model."""
    assert unet.built.lowered.activation.bytes_at(1024 * 1024, batch=2) < unet.built.compiled.arena_bytes


def test_weights_are_rounded_as_the_reference_arithmetic_has_them() -> None:
    assert FP8_TENSOR.weight is not None
    weight = np.random.default_rng(1).standard_normal((OUT, WIDTH)).astype(np.float32)
    found = round_weight(weight, FP8_TENSOR.weight)
    theirs = (weight / found.scale[:, None]).astype(ml_dtypes.float8_e4m3fn)
    assert np.array_equal(found.data.view(ml_dtypes.float8_e4m3fn), theirs)
