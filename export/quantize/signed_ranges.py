"""Static ranges of a layer's input as int8 around 0, by the least error of its output, or as e4m3.

One range for all channels is free: a norm writes 8-bit numbers at once, and layers that read the same tensor share
them. A scale for each channel is a product more, which kernels of norms with SiLU do not take in: a format of its own,
for layers that need it. Behind attention, GEGLU, a residual and a resized picture a kernel rounds in any case, and one
layer alone reads the numbers: there channels have scales of their own wherever that gains.

8-bit floats are equally exact over 15 powers of two. So one scale serves channels of all sizes, which power of two it
is does not matter, and there is room for numbers that are larger than any that was seen.
"""

import math
import re
from typing import Final

import numpy as np

from .calibration import LayerStatistics
from .formats import W8A8_SIGNED, W8A8_SIGNED_CHANNEL, Format
from .grid import LARGEST_E4M3
from .input_rounding import round_inputs
from .layer_error import some_outputs
from .ranges import JUDGES, STRENGTHS, least_room
from .rounded import Floats
from .rounding import round_weight
from .smoothing import smoothing_factors
from .unseen import beyond

LARGEST: Final = 127
_GAIN: Final = 0.9
"""Of the squared error: what is left of it with scales for channels, at most, for them to be worth a product."""
_FREE: Final = re.compile(r".*\.(to_out\.0|ff\.net\.2|proj_out|out_proj|fc2|upsamplers\.0\.conv)")
_LEAST: Final = 1e-12
ROOM: Final = 2.0
"""Of 8-bit floats, at least, beyond the largest number that was seen: a bit of their exponents, of which they have
more than numbers of a layer differ by."""


def fit_signed(name: str, weight: Floats, seen: LayerStatistics, format: Format) -> Floats:
    """Scales `[in]` of a layer of that name and weight `[out, in · height · width]` from what it has shown."""
    assert format.activation is not None
    if format.activation.kind == "float":
        return np.full_like(seen.input_size, float8_step(float(seen.input_size.max(initial=0))))
    some = some_outputs(weight)
    judges = some[:: max(1, len(some) // JUDGES)]
    apart = format == W8A8_SIGNED_CHANNEL or _FREE.fullmatch(name) is not None
    scale = _best(weight, some, seen) if apart else _holding(seen, np.ones_like(seen.input_size))
    inputs = seen.inputs * beyond(seen.input_lows, seen.input_highs)
    return scale * least_room(lambda room: (_rounded(inputs, room * scale) - inputs) @ judges.T)


def float8_step(largest: float) -> float:
    """The power of two with which e4m3 holds 2 to 4 times as much as the largest number that was seen."""
    return 2.0 ** math.ceil(math.log2(ROOM * max(largest, _LEAST) / LARGEST_E4M3))


def signed_error(weight: Floats, seen: LayerStatistics, scale: Floats, format: Format) -> float:
    """Relative squared error of the layer's output with its input, in these steps, and its weight rounded."""
    return _error(some_outputs(weight), seen, scale, format)


def _best(weight: Floats, some: Floats, seen: LayerStatistics) -> Floats:
    """Scales that hold all that was seen: others for each channel, or one for all where that is hardly worse."""
    read = np.abs(weight).max(0).reshape(len(seen.input_size), -1).max(1)
    one = _holding(seen, np.ones_like(seen.input_size))
    tried = [_holding(seen, smoothing_factors(seen.input_size, read, strength)) for strength in STRENGTHS]
    errors = [_error(some, seen, scale, W8A8_SIGNED) for scale in tried]
    best = int(np.argmin(errors))
    return tried[best] if errors[best] < _GAIN * _error(some, seen, one, W8A8_SIGNED) else one


def _holding(seen: LayerStatistics, factors: Floats) -> Floats:
    """Of channels that are divided by these factors first."""
    largest = float((seen.input_size / factors).max(initial=0))
    return (factors * np.float32(max(largest, _LEAST) / LARGEST)).astype(np.float32)


def _error(weight: Floats, seen: LayerStatistics, scale: Floats, format: Format) -> float:
    assert format.weight is not None
    assert format.activation is not None
    wide = np.repeat(scale, seen.inputs.shape[1] // len(scale))
    folded = round_weight(weight * wide, format.weight).dequantized() / wide
    exact = seen.inputs @ weight.T
    reference = float(np.square(exact).sum())
    taken = round_inputs(seen.inputs, format.activation, scale=wide)
    return float(np.square(taken @ folded.T - exact).sum()) / reference if reference else 0.0


def _rounded(values: Floats, scale: Floats) -> Floats:
    """What is left of `[rows, channels (· height · width)]`."""
    wide = np.repeat(scale, values.shape[1] // len(scale))
    found: Floats = np.rint(values / wide).clip(-LARGEST - 1, LARGEST) * wide
    return found
