"""Static int8 convolutions: the arithmetic with a scale for each channel, and the order of quantizing and resizing."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pocketxl.engine.runners.ort_session import session_options
from pocketxl.export.quantize.formats import W8A8_STATIC, Kind
from pocketxl.export.quantize.quantization import Quantization, StaticRange
from pocketxl.export.targets.cpu.conv_int8 import WIDE, conv_int8, patch_bytes

from .lowering import Single, all_as, answer, dequantized, image_spec, l2_error, master_of, noise, operators, run

INPUTS, OUTPUTS = 6, 8


class Convolution(nn.Module):
    def __init__(self, *, stride: int = 1, bias: bool = True, grow: bool = False, joined: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2 * INPUTS if joined else INPUTS, OUTPUTS, 3, stride=stride, padding=1, bias=bias)
        self.grow, self.joined = grow, joined

    def forward(self, x: Tensor) -> Tensor:
        if self.joined:
            x = torch.cat([x, 50.0 * x], dim=1)
        if self.grow:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        y: Tensor = self.conv(x)
        return y


def ranges(module: Convolution, x: np.ndarray) -> StaticRange:
    """Symmetric ones, by the extremes of each channel; the input's zero point off the middle."""
    x = np.concatenate([x, 50 * x], axis=1) if module.joined else x
    y = answer(module.conv, x.repeat(2, axis=2).repeat(2, axis=3) if module.grow else x)
    amax = [np.abs(side).max(axis=(0, 2, 3)).astype(np.float32) for side in (x, y)]
    return StaticRange(input_scale=amax[0] / 100, input_zero=101, output_scale=amax[1] / 127, output_zero=128)


def known(static: StaticRange) -> Quantization:
    return all_as(Kind.CONV, W8A8_STATIC, ranges={"conv": static})


def rounded(x: np.ndarray, scale: np.ndarray, zero: int) -> np.ndarray:
    """uint8 and back, float64."""
    scale = scale.astype(np.float64).reshape(1, -1, 1, 1)
    left: np.ndarray = (np.clip(np.rint(x / scale) + zero, 0, 255) - zero) * scale
    return left


def simulated(module: Convolution, x: np.ndarray, static: StaticRange) -> np.ndarray:
    """Quantized input, weight and output, convolved in float64: the oracle."""
    if module.joined:
        x = np.concatenate([x, 50 * x], axis=1)
    scale = torch.from_numpy(static.input_scale).reshape(1, -1, 1, 1)
    folded = dequantized(nn.Parameter(module.conv.weight.detach() * scale), W8A8_STATIC.weight)
    weight = torch.from_numpy(folded) / scale.double()
    taken = torch.from_numpy(rounded(x, static.input_scale, static.input_zero))
    if module.grow:
        taken = F.interpolate(taken, scale_factor=2.0, mode="nearest")
    bias = None if module.conv.bias is None else module.conv.bias.detach().double()
    y = F.conv2d(taken, weight, bias, stride=module.conv.stride, padding=1)
    return rounded(y.numpy(), static.output_scale, static.output_zero)


def sample(*shape: int) -> np.ndarray:
    """Channels from a hundredth to a hundred times as large as others, asymmetric, with real padding at the edge."""
    x = F.silu(torch.from_numpy(noise(*shape))).numpy()
    return x * np.geomspace(0.01, 100, INPUTS, dtype=np.float32).reshape(1, -1, 1, 1)


@pytest.mark.parametrize(
    "options",
    [{}, {"stride": 2}, {"bias": False}, {"grow": True}, {"joined": True}],
    ids=["plain", "stride", "no bias", "upsampled", "joined"],
)
@pytest.mark.parametrize("unsigned", [False, True])
def test_is_the_quantized_convolution(options: dict[str, Any], unsigned: bool, tmp_path: Path) -> None:
    torch.manual_seed(3)
    module = Convolution(**options)
    x = sample(2, INPUTS, 9, 7)
    static = ranges(module, x)
    model = master_of(module, image_spec(INPUTS, OUTPUTS))
    conv_int8(model.graph, known(static))
    y = run(model, tmp_path, {"x": x}, unsigned=unsigned)
    # The kernel's int32 bias and its rounding of ties may move a number by one step of the output, never by two.
    difference = np.abs(y - simulated(module, x, static)) / static.output_scale.reshape(1, -1, 1, 1)
    assert difference.max() <= 1.01
    assert (difference > 0.5).mean() < 0.02
    assert operators(model)["QLinearConv"] == 1
    assert not operators(model)["Conv"]


def test_channels_of_different_size_are_all_resolved(tmp_path: Path) -> None:
    """With one scale for the tensor the small ones are lost; half of the output comes from them."""
    torch.manual_seed(5)
    module = Convolution()
    size = torch.ones(INPUTS)
    size[0] = 300.0
    module.conv.weight = nn.Parameter(module.conv.weight.detach() / size.reshape(1, -1, 1, 1))
    x = noise(1, INPUTS, 16, 16) * size.numpy().reshape(1, -1, 1, 1)
    static = ranges(module, x)
    coarse = np.full(INPUTS, static.input_scale.max(), np.float32)
    one_scale = StaticRange(
        input_scale=coarse, input_zero=101, output_scale=static.output_scale, output_zero=static.output_zero
    )
    errors = []
    for known_ranges in (static, one_scale):
        model = master_of(module, image_spec(INPUTS, OUTPUTS))
        conv_int8(model.graph, known(known_ranges))
        errors.append(l2_error(run(model, tmp_path, {"x": x}), answer(module, x)))
    assert errors[0] < 0.02
    assert errors[1] > 0.3


def test_upsampling_copies_bytes_not_floats() -> None:
    module = Convolution(grow=True)
    x = noise(1, INPUTS, 4, 4)
    model = master_of(module, image_spec(INPUTS, OUTPUTS))
    conv_int8(model.graph, known(ranges(module, x)))
    assert [n.op_type for n in model.graph] == ["QuantizeLinear", "Resize", "QLinearConv", "DequantizeLinear"]


def test_numbers_outside_the_calibrated_range_are_clipped(tmp_path: Path) -> None:
    module = Convolution()
    model = master_of(module, image_spec(INPUTS, OUTPUTS))
    scale = np.linspace(0.001, 0.004, OUTPUTS, dtype=np.float32)
    input_scale = np.full(INPUTS, 0.01, np.float32)
    conv_int8(
        model.graph,
        known(StaticRange(input_scale=input_scale, input_zero=100, output_scale=scale, output_zero=100)),
    )
    y = run(model, tmp_path, {"x": 100 * noise(1, INPUTS, 4, 4)})
    np.testing.assert_allclose(y.max(axis=(0, 2, 3)), 155 * scale, rtol=1e-6)
    np.testing.assert_allclose(y.min(axis=(0, 2, 3)), -100 * scale, rtol=1e-6)


def wide(inputs: int = WIDE, outputs: int = WIDE) -> tuple[ir.Model, Quantization, np.ndarray]:
    """A convolution of that many channels as master, its ranges, and an input."""
    torch.manual_seed(7)
    module = Single(nn.Conv2d(inputs, outputs, 3, padding=1))
    x = noise(2, inputs, 5, 3)
    y = answer(module, x)
    static = StaticRange(
        input_scale=np.full(inputs, 4 / 127, np.float32), input_zero=101,
        output_scale=np.full(outputs, np.abs(y).max() / 127, np.float32), output_zero=128,
    )  # fmt: skip
    known = all_as(Kind.CONV, W8A8_STATIC, ranges={"layer": static})
    return master_of(module, image_spec(inputs, outputs)), known, x


@pytest.mark.parametrize("tiles", [False, True])
def test_onnx_runtime_does_not_know_wide_zero_points_beforehand_where_there_are_tiles(
    tiles: bool, tmp_path: Path
) -> None:
    """Which way it takes follows from that, on processors with AMX and without; its own optimized graph is read."""
    model, known, x = wide()
    conv_int8(model.graph, known)
    run(model, tmp_path, {"x": x}, tiles=tiles)
    options = session_options(onnxruntime, 1, patterns=True, tiles=tiles)
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(tmp_path / "model.onnx", options, providers=["CPUExecutionProvider"])
    (convolution,) = [n for n in ir.load(tmp_path / "optimized.onnx").graph if n.op_type == "QLinearConv"]
    zero = convolution.inputs[2]
    assert zero is not None
    assert zero.is_initializer() is not tiles


def test_both_ways_have_the_same_bits(tmp_path: Path) -> None:
    """Alone and in a batch, with one thread and with two."""
    model, known, x = wide()
    conv_int8(model.graph, known)
    found = []
    for tiles in (False, True):
        found += [run(model, tmp_path, {"x": x}, tiles=tiles, threads=threads) for threads in (1, 2)]
        found.append(np.concatenate([run(model, tmp_path, {"x": row[None]}, tiles=tiles) for row in x]))
    assert np.abs(found[0]).max() > 0
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


def test_narrow_ones_have_constants() -> None:
    for inputs, outputs in ((WIDE, WIDE // 2), (WIDE // 2, WIDE)):
        model, known, _ = wide(inputs, outputs)
        assert not patch_bytes(model.graph, known)
        conv_int8(model.graph, known)
        assert not operators(model)["Cast"]


def test_patches_of_wide_ones_are_counted() -> None:
    """A byte for every input of every output pixel's sum; outputs are 4 bytes each."""
    model, known, x = wide(2 * WIDE, WIDE)
    pixels = x[:, 0].size
    (share,) = patch_bytes(model.graph, known).values()
    assert share * (4 * WIDE * pixels) == pixels * 2 * WIDE * 9


def test_uncalibrated_layer_is_an_error_that_names_it() -> None:
    model = master_of(Convolution(), image_spec(INPUTS, OUTPUTS))
    with pytest.raises(ValueError, match="unet: conv has no calibrated range"):
        conv_int8(model.graph, all_as(Kind.CONV, W8A8_STATIC))
