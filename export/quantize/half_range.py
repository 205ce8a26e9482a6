"""A VAE in half precision, exactly: powers of two in weights and in the norms' eps keep every tensor in its range.

SDXL's VAE goes beyond 65504, the largest number of float16, on its way from latents to a picture. Its tensors are
divided by 2^k where the reference run has shown that they may become too large (`half_places`), and only there, since
what is made smaller is nearer to the least number. In float32 the outputs are the same to the bit: a power of two moves
the exponent of a number and nothing else.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from .calibration import Calibration
from .half_places import Place
from .rounded import Floats
from .smoothing import Smoothing

if TYPE_CHECKING:
    from torch import nn

LARGEST_HALF = 65504.0
ROOM = 4.0
"""How far beyond what was seen tensors may go: on other pictures, in larger ones, in sums that are not done yet."""


@dataclass(frozen=True, eq=False, kw_only=True)
class HalfRange:
    """What becomes of one VAE; nothing by default."""

    exponents: Mapping[str, int] = field(default_factory=dict)
    """The first layer that writes to a place → k, where it is not 0."""
    smoothing: Smoothing = field(default_factory=Smoothing)
    """What weights take; to be applied behind other smoothing."""
    epsilons: Mapping[str, float] = field(default_factory=dict)
    """Norm → what its eps is multiplied by."""

    def applied(self, module: "nn.Module") -> "nn.Module":
        """The module itself, its norms with their new eps. ONNX has that in float32, in graphs of any dtype."""
        for name, factor in self.epsilons.items():
            norm = module.get_submodule(name)
            norm.eps = norm.eps * factor  # type: ignore[operator, assignment]
        return module


def largest_outputs(seen: Calibration) -> dict[str, float]:
    """Layer → the largest magnitude that its outputs have had."""
    return {name: float(layer.output_size.max(initial=0)) for name, layer in seen.layers.items()}


def beyond_half(seen: Calibration) -> dict[str, float]:
    """The layers that have read or written a number that float16 does not have, and its magnitude."""
    inputs = {name: float(layer.input_size.max(initial=0)) for name, layer in seen.layers.items()}
    largest = {name: max(size, inputs[name]) for name, size in largest_outputs(seen).items()}
    return {name: size for name, size in largest.items() if size > LARGEST_HALF}


def find_exponents(places: Iterable[Place], largest: Mapping[str, float]) -> dict[Place, int]:
    """Place → the least k with which it stays in half's range with `ROOM` to spare.

    Of outputs that are added up the sum of their largest magnitudes counts, above which no sum of them can be. Queries
    and keys that do not fit become equally large; k is negative where keys were larger. A layer that is not in
    `largest` has shown nothing.
    """

    def whole(layers: tuple[str, ...]) -> float:
        return sum(largest.get(layer, 0.0) for layer in layers)

    return {place: _exponent(whole(place.writers), whole(place.against)) for place in places}


def _exponent(largest: float, against: float) -> int:
    needed = halvings(largest) or -halvings(against)
    return round(math.log2(largest / against) / 2) if needed and largest and against else needed


def halvings(largest: float) -> int:
    """The least k ≥ 0 with `largest · ROOM · 2^-k` ≤ 65504."""
    mantissa, exponent = math.frexp(largest * ROOM / LARGEST_HALF)  # the mantissa is at least a half
    return max(0, exponent if mantissa > 0.5 else exponent - 1)


def scaled_places(exponents: Mapping[Place, int], shapes: Mapping[str, tuple[int, ...]]) -> HalfRange:
    """Divide each place by 2^k; `shapes` are those of the parameters."""
    rows: dict[str, Floats] = {}
    columns: dict[str, Floats] = {}
    epsilons: dict[str, float] = {}
    changed = {place: k for place, k in exponents.items() if k}
    for place, k in changed.items():
        written = [(layer, -k) for layer in place.writers] + [(layer, k) for layer in place.against]
        for layer, power in written:
            for parameter in (f"{layer}.weight", f"{layer}.bias"):
                rows[parameter] = np.full(shapes[parameter][0], 2.0**power, np.float32)
        for layer in place.readers:
            columns[layer] = np.full(shapes[f"{layer}.weight"][1], 2.0**k, np.float32)
        epsilons |= dict.fromkeys(place.norms, 4.0**-k)
    return HalfRange(
        exponents={place.writers[0]: k for place, k in changed.items()},
        smoothing=Smoothing(rows=rows, columns=columns),
        epsilons=epsilons,
    )
