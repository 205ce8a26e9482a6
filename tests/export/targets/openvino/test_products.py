"""int8 × int8 of an `openvino` engine: the format's numbers, and what OpenVINO makes of them on this processor."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from pocketxl.engine.runners.processor import adds_in_16_bits
from pocketxl.export.graph.master import export_master
from pocketxl.export.quantize.formats import W8A8_SIGNED, Kind
from pocketxl.export.quantize.rounding import round_weight
from pocketxl.export.targets.openvino.products import products

from ....tolerances import OPENVINO_PRODUCT_RELATIVE
from ..cpu.lowering import Single, all_as, image_spec, master_of, operators, token_spec

ov = pytest.importorskip("openvino")
WIDTH, OUT = 64, 48
Compiled = Callable[[np.ndarray], np.ndarray]


def layer(kind: Kind) -> Single:
    """A layer whose output channels differ by a factor of 300."""
    torch.manual_seed(0)
    made: Any = nn.Linear(WIDTH, OUT) if kind is Kind.LINEAR else nn.Conv2d(WIDTH, OUT, 3, padding=1, stride=2)
    made.requires_grad_(False).weight *= torch.logspace(0, -2.5, OUT).view(-1, *[1] * (made.weight.dim() - 1))
    return Single(made)


def lowered(kind: Kind, scale: np.ndarray) -> ir.Model:
    spec = token_spec(WIDTH, OUT) if kind is Kind.LINEAR else image_spec(WIDTH, OUT)
    model = master_of(layer(kind), spec)
    products(model.graph, all_as(kind, W8A8_SIGNED, input_scales={"layer": scale}))
    return model


def compiled(model: ir.Model, folder: Path, x: np.ndarray) -> tuple[Compiled, set[str]]:
    """What runs it in float32, and the kinds of kernels that multiply."""
    ir.save(model, folder / "model.onnx")
    core = ov.Core()
    read = core.read_model(folder / "model.onnx")
    read.reshape({"x": list(x.shape)})
    made = core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})
    nodes = [node.get_rt_info() for node in made.get_runtime_model().get_ops()]
    kernels = {
        node["primitiveType"].astype(str)
        for node in nodes
        if node["layerType"].astype(str).startswith(("Convolution", "FullyConnected", "MatMul"))
    }
    return lambda given: np.array(made({"x": given})[0]), kernels


def simulated(kind: Kind, x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Inputs and weights in whole steps, everything else in float32."""
    exact: Any = layer(kind)
    weight = exact.layer.weight
    assert W8A8_SIGNED.weight is not None
    wide = np.repeat(scale, weight[0].numel() // WIDTH)
    folded = round_weight(weight.flatten(1).numpy() * wide, W8A8_SIGNED.weight).dequantized() / wide
    steps = scale if kind is Kind.LINEAR else scale[:, None, None]
    exact.layer.weight.copy_(torch.from_numpy(folded).view_as(weight))
    y: np.ndarray = exact(torch.from_numpy((np.rint(x / steps).clip(-128, 127) * steps).astype(np.float32))).numpy()
    return y


@pytest.mark.parametrize("apart", [False, True], ids=["one range", "a range for each channel"])
@pytest.mark.parametrize("kind", [Kind.LINEAR, Kind.CONV])
def test_openvino_multiplies_the_format_s_numbers_in_8_bits(kind: Kind, apart: bool, tmp_path: Path) -> None:
    """Of small rows too: a channel of 1/300 of the others' size is off by as much, relative to itself."""
    sizes = np.logspace(0, 2, WIDTH).astype(np.float32) if apart else np.ones(WIDTH, np.float32)
    scale = (sizes * 2 / 127).astype(np.float32)
    shape = (2, 9, WIDTH) if kind is Kind.LINEAR else (2, WIDTH, 8, 8)
    spread = sizes if kind is Kind.LINEAR else sizes[:, None, None]
    x = (np.random.default_rng(0).standard_normal(shape) * spread).astype(np.float32)
    model = lowered(kind, scale)
    assert operators(model)["QuantizeLinear"] == 1
    call, kernels = compiled(model, tmp_path, x)
    y, expected = call(x), simulated(kind, x, scale)
    axis = (0, 1) if kind is Kind.LINEAR else (0, 2, 3)
    off = np.sqrt(
        np.square(y - expected).sum(axis) / np.square(expected - expected.mean(axis, keepdims=True)).sum(axis)
    )
    assert off.max() < OPENVINO_PRODUCT_RELATIVE
    steps = scale if kind is Kind.LINEAR else scale[:, None, None]
    assert 0 < (np.abs(x) > 128 * steps).mean() < 0.2, "some inputs lie outside"
    assert kernels
    assert all(kernel.lower().endswith("i8") for kernel in kernels), kernels


@pytest.mark.skipif(adds_in_16_bits(), reason="without VNNI OpenVINO's sums may overflow, and engines are refused")
@pytest.mark.parametrize("kind", [Kind.LINEAR, Kind.CONV])
def test_extreme_sums_do_not_overflow(kind: Kind, tmp_path: Path) -> None:
    shape = (1, 4, WIDTH) if kind is Kind.LINEAR else (1, WIDTH, 4, 4)
    module: Any = layer(kind)
    module.layer.weight.fill_(1.0)
    spec = token_spec(WIDTH, OUT) if kind is Kind.LINEAR else image_spec(WIDTH, OUT)
    model = master_of(module, spec)
    products(model.graph, all_as(kind, W8A8_SIGNED, input_scales={"layer": np.full(WIDTH, 1 / 128, np.float32)}))
    x = np.full(shape, -1.0, np.float32)
    call, _ = compiled(model, tmp_path, x)
    assert np.allclose(call(x), module(torch.from_numpy(x)).numpy(), rtol=1e-5)


def test_a_layer_that_was_not_watched_is_named() -> None:
    model = export_master("unet", lambda: layer(Kind.LINEAR), token_spec(WIDTH, OUT))
    with pytest.raises(ValueError, match="layer has no calibrated scale"):
        products(model.graph, all_as(Kind.LINEAR, W8A8_SIGNED))
