"""Static int8 convolutions: the arithmetic with a scale for each channel, and the order of quantizing and resizing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pocketxl.export.quantize.formats import W8A8_STATIC, Kind
from pocketxl.export.quantize.quantization import Quantization, StaticRange
from pocketxl.export.targets.cpu.conv_int8 import conv_int8

from .lowering import all_as, answer, dequantized, image_spec, l2_error, master_of, noise, operators, run

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


def test_uncalibrated_layer_is_an_error_that_names_it() -> None:
    model = master_of(Convolution(), image_spec(INPUTS, OUTPUTS))
    with pytest.raises(ValueError, match="unet: conv has no calibrated range"):
        conv_int8(model.graph, all_as(Kind.CONV, W8A8_STATIC))
