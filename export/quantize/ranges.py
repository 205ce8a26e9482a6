"""Static ranges of a convolution: what its input and output channels are rounded to, by the least error of its output.

A channel that is larger than others gets a larger step, which costs nothing where it is folded into the weights: the
idea of `smoothing`, for what no factor can be moved through (between a norm and the convolution stands SiLU), and for
the two halves of a skip connection, whose ranges differ.

Ranges of the runs that were watched do not hold all others. What counts is how the numbers of a run lie that is as far
beyond all that were watched as one of these was beyond the rest: where few are near the ends, longer ranges cost all
of them more than they save (random weights); where many are, they do not (pictures).
"""

from collections.abc import Callable
from typing import Final

import numpy as np

from .calibration import LayerStatistics, Range
from .formats import W8A8_STATIC
from .layer_error import some_outputs
from .quantization import StaticRange
from .rounded import Floats
from .rounding import kept_of, round_weight
from .smoothing import smoothing_factors
from .static_ranges import hold_static
from .unseen import beyond

STRENGTHS: Final = (0.5, 0.75, 1.0)
ROOMS: Final = (1.0, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0)
"""Lengths of ranges that are tried, relative to the extremes that were seen. Chosen by the samples of a run held out,
which hold few of the numbers near the ends, they lost 3.5 dB of the miniature's pictures of other prompts."""
JUDGES: Final = 64
"""Output channels by which the length of an input's ranges is judged."""

Steps = tuple[Floats, int]
"""Scales `[channels]`, and the zero point that they share."""


def fit_ranges(weight: Floats, bias: Floats | None, seen: LayerStatistics) -> StaticRange:
    """Ranges of a layer with that weight `[out, in · height · width]` from what it has shown."""
    some = some_outputs(weight)
    judges = some[:: max(1, len(some) // JUDGES)]
    factors = _factors(weight, some, seen)
    scale, zero = _input_steps(seen.input_range, factors)
    inputs = seen.inputs * beyond(seen.input_lows, seen.input_highs)
    scale = scale * least_room(lambda room: (_rounded(inputs, (room * scale, zero)) - inputs) @ judges.T)
    output_scale, output_zero = hold_static(*seen.output_range)
    outputs = _products(some, bias, seen) * beyond(seen.output_lows, seen.output_highs)
    steps = some_outputs(output_scale)
    output_scale = output_scale * least_room(lambda room: _rounded(outputs, (room * steps, output_zero)) - outputs)
    return StaticRange(input_scale=scale, input_zero=zero, output_scale=output_scale, output_zero=output_zero)


def static_error(weight: Floats, bias: Floats | None, seen: LayerStatistics, ranges: StaticRange) -> float:
    """Relative squared error of the layer's output: that of its input and weight, and that of rounding the output."""
    some = some_outputs(weight)
    exact = _products(some, bias, seen)
    steps = some_outputs(ranges.output_scale), ranges.output_zero
    reference = float(np.square(exact).sum())
    rounded = float(np.square(_rounded(exact, steps) - exact).sum()) / reference if reference else 0.0
    inputs = (ranges.input_scale, ranges.input_zero)
    return _input_error(some, seen, inputs, seen.inputs @ some.T, compensating=True) + rounded


def _factors(weight: Floats, some: Floats, seen: LayerStatistics) -> Floats:
    """What the input's channels are divided by; those by which the output is off least."""
    read = np.abs(weight).max(0).reshape(len(seen.input_size), -1).max(1)
    candidates = [smoothing_factors(seen.input_size, read, strength) for strength in STRENGTHS]
    exact = seen.inputs @ some.T
    return min(
        [np.ones_like(seen.input_size), *candidates],
        key=lambda factors: _input_error(some, seen, _input_steps(seen.input_range, factors), exact),
    )


def least_room(off: Callable[[np.float32], Floats]) -> np.float32:
    """The length of a range, relative to what was seen, with which numbers are off least."""
    return min(map(np.float32, ROOMS), key=lambda room: float(np.square(off(room)).sum()))


def _input_error(
    weight: Floats, seen: LayerStatistics, steps: Steps, exact: Floats, *, compensating: bool = False
) -> float:
    """Relative squared error of the products with inputs and weight rounded; `exact`: those with neither.

    `compensating`: the weight as it will be rounded. To nearest is enough to tell ranges apart, in a third of the time.
    """
    assert W8A8_STATIC.weight is not None
    scale = np.repeat(steps[0], seen.taps)
    how, folded = W8A8_STATIC.weight, weight * scale
    if compensating:
        numbers = round_weight(folded, how, inputs=seen.inputs / scale, taps=seen.taps).dequantized()
    else:
        numbers = kept_of(folded, how)
    reference = float(np.square(exact).sum())
    return (
        float(np.square(_rounded(seen.inputs, steps) @ (numbers / scale).T - exact).sum()) / reference
        if reference
        else 0.0
    )


def _input_steps(edges: Range, factors: Floats) -> Steps:
    """Scales and zero point of an input whose channels are divided by these factors first."""
    low, high = (edge / factors for edge in edges)
    least, most = min(float(low.min()), 0.0), max(float(high.max()), 0.0)
    step = (most - least) / 255 or 1.0
    return (factors * np.float32(step)).astype(np.float32), int(np.clip(round(-least / step), 0, 255))


def _products(weight: Floats, bias: Floats | None, seen: LayerStatistics) -> Floats:
    products: Floats = seen.inputs @ weight.T
    return products if bias is None else products + some_outputs(bias)


def _rounded(values: Floats, steps: Steps) -> Floats:
    """What is left of `[rows, channels (· height · width)]`."""
    scale = np.repeat(steps[0], values.shape[1] // len(steps[0]))
    found: Floats = (np.rint(values / scale)).clip(-steps[1], 255 - steps[1]) * scale
    return found
