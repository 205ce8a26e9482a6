"""int8 × int8 of an `rtx` engine: the format's numbers, what the program makes of it, and sums that fit into halves."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import nn

from pocketxl.engine.compiled.program import Compiled
from pocketxl.engine.runners.ort_session import session_options
from pocketxl.export.graph.master import attach, export_master
from pocketxl.export.quantize.formats import FLOAT16, W8A8_SIGNED, Kind
from pocketxl.export.quantize.rounding import round_weight
from pocketxl.export.targets.rtx.eight_bits import weight_scale
from pocketxl.export.targets.rtx.int8 import INT8, int8

from ....fixtures.onnx_run import StateDict
from ....tolerances import HALF_RELATIVE, RECIPE_RELATIVE
from ..cpu.lowering import all_as, image_spec, operators, token_spec
from .calibrated import Measured, measured_unet
from .test_weight_only import Cast
from .trap import trap

WIDTH, OUT = 64, 48
HALF_MAX = 65504


def single(kind: Kind) -> Cast:
    """A layer whose output channels differ by a factor of 300."""
    torch.manual_seed(0)
    module = Cast(nn.Linear(WIDTH, OUT) if kind is Kind.LINEAR else nn.Conv2d(WIDTH, OUT, 3, padding=1, stride=2))
    weight = module.requires_grad_(False).layer.weight
    weight *= torch.logspace(0, -2.5, OUT).view(-1, *[1] * (weight.dim() - 1))
    return module


def lowered(kind: Kind, module: Cast, scale: np.ndarray) -> ir.Model:
    spec = token_spec(WIDTH, OUT) if kind is Kind.LINEAR else image_spec(WIDTH, OUT)
    model = export_master("unet", lambda: single(kind), spec, dtype=torch.float16)
    attach(model, StateDict(module.state_dict()))
    int8(model.graph, all_as(kind, W8A8_SIGNED, input_scales={"layer": scale}))
    return model


def answer(model: ir.Model, x: np.ndarray) -> np.ndarray:
    options = session_options(onnxruntime, 1, patterns=True)
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    y: np.ndarray = session.run(None, {"x": x})[0]
    return y


def simulated(module: Cast, x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Inputs and weights in whole steps, everything else in float32."""
    assert W8A8_SIGNED.weight is not None
    weight = module.layer.weight.half().float()
    wide = np.repeat(scale, weight[0].numel() // WIDTH)
    folded = round_weight(weight.flatten(1).numpy() * wide, W8A8_SIGNED.weight).dequantized() / wide
    steps = scale if isinstance(module.layer, nn.Linear) else scale[:, None, None]
    rounded = (np.rint(x / steps).clip(-128, 127) * steps).astype(np.float32)
    exact = single(Kind.LINEAR if isinstance(module.layer, nn.Linear) else Kind.CONV)
    exact.layer.weight.copy_(torch.from_numpy(folded).view_as(weight))
    exact.layer.bias.copy_(module.layer.bias.half().float())
    y: np.ndarray = exact(torch.from_numpy(rounded)).numpy()
    return y


@pytest.mark.parametrize("apart", [False, True], ids=["one range", "a range for each channel"])
@pytest.mark.parametrize("kind", [Kind.LINEAR, Kind.CONV])
def test_every_channel_has_the_format_s_numbers(kind: Kind, apart: bool) -> None:
    """Of small rows too: a channel of 1/300 of the others' size is off by as much, relative to itself."""
    sizes = np.logspace(0, 2, WIDTH).astype(np.float32) if apart else np.ones(WIDTH, np.float32)
    # Powers of two, so that halves have them exactly.
    scale = np.exp2(np.round(np.log2(sizes * 2 / 127))).astype(np.float32)
    shape = (2, 9, WIDTH) if kind is Kind.LINEAR else (2, WIDTH, 8, 8)
    spread = sizes if kind is Kind.LINEAR else sizes[:, None, None]
    x = (np.random.default_rng(0).standard_normal(shape) * spread).astype(np.float16).astype(np.float32)
    module = single(kind)
    module.layer.bias.zero_()
    model = lowered(kind, module, scale)
    assert operators(model)["Mul"] == 1 + apart
    y, expected = answer(model, x), simulated(module, x, scale)
    axis = (0, 1) if kind is Kind.LINEAR else (0, 2, 3)
    off = np.sqrt(np.square(y - expected).sum(axis) / np.square(expected).sum(axis))
    assert off.max() < HALF_RELATIVE
    steps = scale if kind is Kind.LINEAR else scale[:, None, None]
    assert 0 < (np.abs(x) > 128 * steps).mean() < 0.2, "some inputs lie outside"


@pytest.mark.parametrize("width", [4, 64, 640, 1280, 5120, 11520, 23040])
@pytest.mark.parametrize("step", [2.0**-14, 0.01, 1.0, HALF_MAX / 127])
def test_no_numbers_make_a_sum_that_halves_do_not_hold(width: int, step: float) -> None:
    scale = weight_scale(INT8, width, step)
    assert np.float16(scale) == scale > 0, "exact in half precision"
    largest = 128 * 127 * width * step * scale
    assert largest < HALF_MAX / 4
    if 2.0**-24 < scale < 2.0**15:
        assert INT8.largest_sum / 2 < largest <= INT8.largest_sum


def test_a_layer_that_was_not_watched_is_named() -> None:
    model = export_master("unet", lambda: single(Kind.LINEAR), token_spec(WIDTH, OUT), dtype=torch.float16)
    with pytest.raises(ValueError, match="layer has no calibrated scale"):
        int8(model.graph, all_as(Kind.LINEAR, W8A8_SIGNED))


class Three(nn.Module):
    """Layers that read one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(WIDTH, OUT) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.to(self.a.weight.dtype)
        return torch.cat([self.a(x), self.b(x), self.c(x)], 1)


def test_layers_that_read_one_tensor_share_its_numbers_and_one_scale() -> None:
    """By the longest range; with a scale for each channel a layer has its own."""
    ones, apart = np.ones(WIDTH, np.float32), np.linspace(0.5, 2, WIDTH, dtype=np.float32)
    known = {"a": 0.01 * ones, "b": 0.02 * ones, "c": 0.01 * apart}
    model = attach(
        export_master("unet", Three, token_spec(WIDTH, OUT), dtype=torch.float16), StateDict(Three().state_dict())
    )
    int8(model.graph, all_as(Kind.LINEAR, W8A8_SIGNED, input_scales=known))
    count = operators(model)
    assert (count["QuantizeLinear"], count["MatMul"]) == (2, 3)

    def value(name: str) -> float:
        tensor = model.graph.initializers[name].const_value
        assert tensor is not None
        return float(tensor.numpy())

    assert value("a.input_scale") == np.float16(0.02)
    assert value("a.weight_scale") == value("b.weight_scale"), "else they are no longer one product"


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    pytest.importorskip("tensorrt_rtx")
    return measured_unet("int8", tmp_path_factory.mktemp("unet"))


def test_a_unet_s_products_are_of_8_bit_numbers_but_those_that_the_recipe_keeps(unet: Measured) -> None:
    floats = [p for p in unet.built.compiled.products if p.factors != ("int8", "int8")]
    assert {p.factors for p in floats} == {("half", "half")}
    kept = {name for name, kind in unet.layers.items() if unet.numbers.format(kind, name) == FLOAT16}
    assert {p.name.removesuffix("/Conv") for p in floats} == kept
    assert {unet.layers[name] for name in kept} == {Kind.CONV}, "of the linear layers none"
    assert {p.kind for p in unet.built.compiled.products if p not in floats} == {"corrltn", "fully_connected"}
    assert unet.built.compiled.constants["int8"] > 0.8 * unet.weights


def test_rounding_is_part_of_the_kernels_before_and_attention_stays_one_kernel(unet: Measured) -> None:
    """The last norm's convolution is in halves; other than in `fp16`, residuals are added behind products."""
    kernels = unet.built.compiled.kernels
    assert unet.built.compiled.attentions == unet.built.operators("Attention") == 8
    assert kernels["SiluMulMinMaxRounCastGnor"] == 16
    assert kernels["SiluGnor"] == 1
    rounding = [name for name in kernels if "MinMaxRounCast" in name]
    assert not [name for name in rounding if name.startswith("MulMinMaxRounCast") and name != "MulMinMaxRounCastResh"]
    assert kernels["MulMinMaxRounCastResh"] == 4, "what is read by proj_in: a norm without SiLU, and then in tokens"


def overflowing(compiled: Compiled) -> list[str]:
    """Matrix products of int8 whose sums can leave half precision before they are scaled."""
    return [
        p.name
        for p in compiled.products
        if p.kind == "fully_connected"
        and p.factors == ("int8", "int8")
        and (p.alpha is None or p.width is None or 128 * 127 * p.width * p.alpha > HALF_MAX)
    ]


def test_no_product_writes_raw_sums(unet: Measured) -> None:
    assert not overflowing(unet.built.compiled)
    convolutions = [p for p in unet.built.compiled.products if p.kind == "corrltn" and p.factors[0] == "int8"]
    assert {p.result for p in convolutions} == {"half"}, "scales for channels would make it write float32"


def test_scales_for_channels_would_be_seen(tmp_path: Path) -> None:
    """The trap itself: what the other tests would say of a lowering that fell into it."""
    pytest.importorskip("tensorrt_rtx")
    numbers = np.random.default_rng(0).integers(-127, 127, (WIDTH, OUT)).astype(np.int8)
    assert overflowing(trap(tmp_path, numbers)) == ["trap"]


def test_the_stand_in_is_within_the_recipe_s_limit(unet: Measured) -> None:
    assert 1e-4 < unet.figures.relative_error < RECIPE_RELATIVE["int8"], "quantizing is not free"


def test_turing_multiplies_matrices_in_8_bits_and_convolves_halves(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    made = measured_unet("int8", tmp_path, "rtx-sm75")
    assert made.built.compiled.architectures == ("sm75",)
    assert {(p.kind, p.factors) for p in made.built.compiled.products} == {
        ("fully_connected", ("int8", "int8")),
        ("corrltn", ("half", "half")),
    }
    assert not overflowing(made.built.compiled)
    assert made.built.compiled.constants["int8"] > 0.8 * made.weights, "the weights of convolutions too"
    assert made.built.compiled.attentions == 8
    assert made.figures.relative_error < RECIPE_RELATIVE["int8"]
