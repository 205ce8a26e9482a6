"""Static ranges of a convolution: what its input and output channels are rounded to, by the least error of its output.

A channel that is larger than others gets a larger step, which costs nothing where it is folded into the weights: the
idea of `smoothing`, for what no factor can be moved through (between a norm and the convolution stands SiLU), and for
the two halves of a skip connection, whose ranges differ.
"""

import numpy as np

from .calibration import LayerStatistics
from .formats import W8A8_STATIC
from .layer_error import some_outputs
from .quantization import StaticRange
from .rounded import Floats
from .rounding import round_weight
from .smoothing import smoothing_factors
from .static_ranges import hold_static

STRENGTHS = (0.5, 0.75, 1.0)


def fit_ranges(weight: Floats, seen: LayerStatistics) -> StaticRange:
    """Ranges of a layer with that weight `[out, in · height · width]` from what it has shown."""
    patch = seen.inputs.shape[1] // len(seen.input_low)
    some = some_outputs(weight)
    taken = np.maximum(np.abs(seen.input_low), np.abs(seen.input_high))
    read = np.abs(weight).max(0).reshape(-1, patch).max(1)
    ones = np.ones_like(taken)
    candidates = [ones, *(smoothing_factors(taken, read, strength) for strength in STRENGTHS)]
    scale, zero = min((_input(seen, factors) for factors in candidates), key=lambda r: _input_error(some, seen, *r))
    output_scale, output_zero = hold_static(seen.output_room * seen.output_low, seen.output_room * seen.output_high)
    return StaticRange(input_scale=scale, input_zero=zero, output_scale=output_scale, output_zero=output_zero)


def static_error(weight: Floats, bias: Floats | None, seen: LayerStatistics, ranges: StaticRange) -> float:
    """Relative squared error of the layer's output: that of its input and weight, and that of rounding the output."""
    some = some_outputs(weight)
    exact = seen.inputs @ weight.T + (0 if bias is None else bias)
    steps = (np.rint(exact / ranges.output_scale) + ranges.output_zero).clip(0, 255) - ranges.output_zero
    reference = float(np.square(exact).sum())
    rounded = float(np.square(steps * ranges.output_scale - exact).sum()) / reference if reference else 0.0
    return _input_error(some, seen, ranges.input_scale, ranges.input_zero) + rounded


def _input_error(weight: Floats, seen: LayerStatistics, scale: Floats, zero: int) -> float:
    """Relative squared error of the products with inputs and weight rounded."""
    patch = seen.inputs.shape[1] // len(scale)
    steps = np.repeat(scale, patch)
    rounded = (np.rint(seen.inputs / steps) + zero).clip(0, 255) - zero
    assert W8A8_STATIC.weight is not None
    folded = round_weight(weight * steps, W8A8_STATIC.weight).dequantized()
    exact = seen.inputs @ weight.T
    reference = float(np.square(exact).sum())
    return float(np.square(rounded.astype(np.float32) @ folded.T - exact).sum()) / reference if reference else 0.0


def _input(seen: LayerStatistics, factors: Floats) -> tuple[Floats, int]:
    """Scales and zero point of the input if its channels are divided by these factors first."""
    low, high = (seen.input_room * edge / factors for edge in (seen.input_low, seen.input_high))
    least, most = min(float(low.min()), 0.0), max(float(high.max()), 0.0)
    step = (most - least) / 255 or 1.0
    return (factors * np.float32(step)).astype(np.float32), int(np.clip(round(-least / step), 0, 255))
