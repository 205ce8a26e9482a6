"""Distances: how far a lowered component or a picture is from the unquantized one."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ...engine.specs import Arrays

    Called = Callable[[Arrays], "dict[str, np.ndarray]"]


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Distance of one component from its reference, of the output that is worst, over all samples."""

    relative_error: float
    """|lowered - reference| / |reference|, L2."""
    max_abs: float
    """Largest difference of a single number."""
    psnr_db: float
    """Against the reference's own span (largest minus smallest number)."""
    samples: int

    def to_json(self) -> dict[str, float]:
        """Plain data for `engine.json`, as it will be read from there: all of them floats."""
        return {name: float(value) for name, value in self.__dict__.items()}


def compare(reference: "Called", lowered: "Called", samples: "Iterable[Arrays]") -> Figures:
    """Call both on every sample; figures over all samples together."""
    sums: dict[str, _Sums] = {}
    count = 0
    for sample in samples:
        count += 1
        actual, expected = lowered(sample), reference(sample)
        for name, values in expected.items():
            sums.setdefault(name, _Sums()).add(values, actual[name])
    if not sums:
        raise ValueError("parity needs at least one sample")
    worst = max(sums.values(), key=lambda s: _nan_is_worst(s.relative_error))
    return Figures(relative_error=worst.relative_error, max_abs=worst.max_abs, psnr_db=worst.psnr_db, samples=count)


class _Sums:
    """Running sums of one tensor's differences."""

    def __init__(self) -> None:
        self.squared_error = self.squared_reference = self.max_abs = 0.0
        self.low, self.high, self.numbers = math.inf, -math.inf, 0

    def add(self, expected: np.ndarray, actual: np.ndarray) -> None:
        difference = actual.astype(np.float64) - expected
        self.squared_error += float(np.square(difference).sum())
        self.squared_reference += float(np.square(expected, dtype=np.float64).sum())
        largest = float(np.abs(difference).max(initial=0.0))
        self.max_abs = largest if math.isnan(largest) else max(self.max_abs, largest)
        self.low, self.high = min(self.low, float(expected.min())), max(self.high, float(expected.max()))
        self.numbers += expected.size

    @property
    def relative_error(self) -> float:
        if self.squared_error == 0:
            return 0.0
        return math.sqrt(self.squared_error / self.squared_reference) if self.squared_reference else math.inf

    @property
    def psnr_db(self) -> float:
        return psnr_db(self.squared_error / max(self.numbers, 1), self.high - self.low)


def psnr_db(mean_square: float, span: float) -> float:
    """Peak signal-to-noise ratio of a mean squared error; at most 200 dB, so that the figure stays a number in JSON."""
    if mean_square == 0:
        return 200.0
    return min(200.0, 10 * math.log10(span * span / mean_square)) if span > 0 and math.isfinite(mean_square) else 0.0


def _nan_is_worst(error: float) -> float:
    return math.inf if math.isnan(error) else error
