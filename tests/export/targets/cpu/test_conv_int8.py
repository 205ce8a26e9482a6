"""Static int8 convolutions: the arithmetic, attributes and the order of quantizing and resizing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pocketxl.engine.specs import Role
from pocketxl.export.quantize.formats import W8A8_STATIC, Kind
from pocketxl.export.quantize.int8 import Uint8Range
from pocketxl.export.reference.calibrate import Calibration
from pocketxl.export.targets.cpu.conv_int8 import conv_int8

from .lowering import all_as, answer, image_spec, master_of, noise, operators, run

RECIPE = all_as(Kind.CONV, W8A8_STATIC)


class Convolution(nn.Module):
    def __init__(self, *, stride: int = 1, bias: bool = True, grow: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 8, 3, stride=stride, padding=1, bias=bias)
        self.grow = grow

    def forward(self, x: Tensor) -> Tensor:
        if self.grow:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        y: Tensor = self.conv(x)
        return y


def calibrated(module: Convolution, x: np.ndarray) -> Calibration:
    y = answer(module, x)
    return Calibration(ranges={"conv": (float(x.min()), float(x.max()), float(y.min()), float(y.max()))})


def simulated(module: Convolution, x: np.ndarray, calibration: Calibration) -> np.ndarray:
    """Quantized input, weight, bias and output, convolved in float64: the oracle."""
    ranges = calibration.ranges["conv"]
    taken, given = Uint8Range.over(*ranges[:2]), Uint8Range.over(*ranges[2:])
    weight = module.conv.weight.detach().double()
    scale = weight.abs().amax(dim=(1, 2, 3), keepdim=True) / 127
    quantized = torch.from_numpy(taken.round_trip(x)).double()
    if module.grow:
        quantized = F.interpolate(quantized, scale_factor=2.0, mode="nearest")
    bias = None if module.conv.bias is None else module.conv.bias.detach().double()
    y = F.conv2d(quantized, (weight / scale).round() * scale, bias, stride=module.conv.stride, padding=1)
    return given.round_trip(y.numpy().astype(np.float32))


@pytest.mark.parametrize(
    "options", [{}, {"stride": 2}, {"bias": False}, {"grow": True}], ids=["plain", "stride", "no bias", "upsampled"]
)
def test_is_the_quantized_convolution(options: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(3)
    module = Convolution(**options)
    x = F.silu(torch.from_numpy(noise(2, 6, 9, 7))).numpy()  # asymmetric, with real padding at the edge
    calibration = calibrated(module, x)
    model = master_of(module, image_spec(6, 8))
    conv_int8(model.graph, RECIPE, Role.UNET, calibration)
    y = run(model, tmp_path, {"x": x})
    step = Uint8Range.over(*calibration.ranges["conv"][2:]).scale
    # The kernel's int32 bias and its rounding of ties may move a number by one step of the output, never by two.
    difference = np.abs(y - simulated(module, x, calibration))
    assert difference.max() <= 1.01 * step
    assert (difference > 0.5 * step).mean() < 0.02
    assert operators(model)["QLinearConv"] == 1
    assert not operators(model)["Conv"]


def test_upsampling_copies_bytes_not_floats(tmp_path: Path) -> None:
    module = Convolution(grow=True)
    x = noise(1, 6, 4, 4)
    model = master_of(module, image_spec(6, 8))
    conv_int8(model.graph, RECIPE, Role.UNET, calibrated(module, x))
    assert [n.op_type for n in model.graph] == ["QuantizeLinear", "Resize", "QLinearConv", "DequantizeLinear"]


def test_numbers_outside_the_calibrated_range_are_clipped(tmp_path: Path) -> None:
    module = Convolution()
    model = master_of(module, image_spec(6, 8))
    conv_int8(model.graph, RECIPE, Role.UNET, Calibration(ranges={"conv": (-1.0, 1.0, -0.5, 0.5)}))
    y = run(model, tmp_path, {"x": 100 * noise(1, 6, 4, 4)})
    assert np.abs(y).max() <= 0.5 * 1.01


def test_uncalibrated_layer_is_an_error_that_names_it() -> None:
    model = master_of(Convolution(), image_spec(6, 8))
    with pytest.raises(ValueError, match="unet: conv has no calibrated range"):
        conv_int8(model.graph, RECIPE, Role.UNET, Calibration(ranges={}))
