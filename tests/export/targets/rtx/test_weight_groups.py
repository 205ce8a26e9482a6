"""4-bit weights of an `rtx` engine: the format's numbers, and what the program makes of them."""

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import nn

from pocketxl.engine.runners.ort_session import session_options
from pocketxl.engine.specs import Role
from pocketxl.export.graph.master import attach, export_master
from pocketxl.export.quantize.formats import FLOAT16, W4_HALVES, W8, Kind
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.quantize.rounding import round_weight
from pocketxl.export.targets.rtx.weight_groups import weight_groups

from ....fixtures.onnx_run import StateDict
from ....tolerances import HALF_RELATIVE
from ..cpu.lowering import all_as, image_spec, operators, token_spec
from .calibrated import Measured, measured_unet
from .test_weight_only import Cast

OUT = 48


def single(kind: Kind, width: int) -> Cast:
    """A layer whose output channels differ by a factor of 300."""
    torch.manual_seed(0)
    module = Cast(nn.Linear(width, OUT) if kind is Kind.LINEAR else nn.Conv2d(width, OUT, 3, padding=1, stride=2))
    weight = module.requires_grad_(False).layer.weight
    weight *= torch.logspace(0, -2.5, OUT).view(-1, *[1] * (weight.dim() - 1))
    module.layer.bias.zero_()
    return module


@pytest.mark.parametrize(
    ("kind", "width", "cut"),
    [(Kind.LINEAR, 128, 0), (Kind.LINEAR, 80, 1), (Kind.CONV, 64, 0), (Kind.CONV, 24, 1)],
    ids=["linear", "linear whose last block is short", "convolution", "convolution whose last block is short"],
)
def test_every_channel_has_the_format_s_numbers(kind: Kind, width: int, cut: int) -> None:
    module = single(kind, width)
    spec = token_spec(width, OUT) if kind is Kind.LINEAR else image_spec(width, OUT)
    model = export_master("unet", lambda: single(kind, width), spec, dtype=torch.float16)
    attach(model, StateDict(module.state_dict()))
    weight_groups(model.graph, all_as(kind, W4_HALVES))
    assert operators(model)["Slice"] == cut
    x = torch.randn(2, 9, width) if kind is Kind.LINEAR else torch.randn(2, width, 8, 8)
    x = x.half().float()
    session = onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), session_options(onnxruntime, 1, patterns=True)
    )
    y = session.run(None, {"x": x.numpy()})[0]
    assert W4_HALVES.weight is not None
    weight = module.layer.weight
    rounded = round_weight(weight.half().float().flatten(1).numpy(), W4_HALVES.weight).dequantized()
    weight.copy_(torch.from_numpy(rounded).view_as(weight))
    expected = module(x).numpy()
    axis = (0, 1) if kind is Kind.LINEAR else (0, 2, 3)
    off = np.sqrt(np.square(y - expected).sum(axis) / np.square(expected).sum(axis))
    assert off.max() < HALF_RELATIVE


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    pytest.importorskip("tensorrt_rtx")
    return measured_unet("int4-weight", tmp_path_factory.mktemp("unet"))


def test_a_unet_s_weights_stay_4_bits_and_its_products_are_of_halves(unet: Measured) -> None:
    formats = {unet.numbers.format(kind, name) for name, kind in unet.layers.items()}
    assert formats == {W4_HALVES, W8, FLOAT16}
    assert {p.factors for p in unet.built.compiled.products} == {("half", "half")}
    stored = unet.built.compiled.constants
    assert stored["int4"] > 0.8 * unet.weights / 2
    assert stored["int4"] + stored["int8"] + stored["half"] < 4.9 / 8 * unet.weights, "and norms, biases and scales"


def test_matrices_are_dequantized_in_their_products_and_the_weights_of_convolutions_before(unet: Measured) -> None:
    """Behind float32 scales, or where blocks do not divide the width, a kernel would write a matrix as halves."""
    kernels = unet.built.compiled.kernels
    linear, conv = (
        [n for n, k in unet.layers.items() if k is kind and unet.numbers.format(k, n) == W4_HALVES]
        for kind in (Kind.LINEAR, Kind.CONV)
    )
    assert kernels["ReplCastMulCastFc"] == len(linear) > 20
    assert kernels["ReplCastMulCastResh"] == len(conv) > 10
    assert not [n for n in kernels if n.startswith("ReplCastMulCast") and not n.endswith(("CastFc", "CastResh"))]


def test_attention_and_norms_are_fused_as_they_are_without(unet: Measured) -> None:
    compiled = unet.built.compiled
    assert compiled.attentions == unet.built.operators("Attention") == 8
    assert compiled.kernels["SiluGnor"] == 17
    assert not {"CastSilu", "CastGnor"} & set(compiled.kernels)


def test_the_stand_in_is_within_the_recipe_s_limit(unet: Measured) -> None:
    assert 1e-3 < unet.figures.relative_error < RECIPES["int4-weight"].max_relative_error[Role.UNET], (
        "quantizing is not free"
    )
