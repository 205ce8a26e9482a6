"""The numbers that a weight's format has, and the scale and zero point that serve some weights best."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from .formats import Weight
from .rounded import MIDDLE

# Numbers that share a scale get this one at least: zeros would divide to NaN.
SMALLEST_SCALE: Final = 1e-12
SMALLEST_HALF: Final = 2.0**-24
LARGEST_HALF: Final = 65504.0
E4M3: Final = torch.float8_e4m3fn
LARGEST_E4M3: Final = 448.0

# Shares of the range that are tried for 4 bits. Measured on Gaussian, Laplacian and Student's t weights in groups of
# 64 and 128: a second round of least squares, zero points beside the nearest, or ends that move apart from each other
# gain 0.5 % of the squared error at most, for two to four times the time.
_SHARES_OF_4_BITS: Final = (1.0, 0.93, 0.86, 0.8, 0.73, 0.66)
# Of 8 bits. By the error of the weights alone, clipping a row's one extreme pays from about 10,000 numbers on.
_SHARES_OF_8_BITS: Final = tuple(0.9**i for i in range(1, 19))


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The steps from a zero point that a format has: all integers from `low` to `high`, or those of e4m3.

    `free`: the zero point is chosen with the scale, from `low` to `high`; else it is `zero`.
    """

    low: int
    high: int
    zero: int = 0
    free: bool = False
    float8: bool = False
    half: bool = False
    """Whether scales are numbers that half precision has."""

    @classmethod
    def of(cls, how: Weight) -> "Grid":
        """The grid of that format; `ValueError` for one that is not 4 or 8 bits."""
        if how.kind == "float" and how.bits == 8 and not how.zero:
            return cls(low=-448, high=448, float8=True)
        if how.kind == "int" and how.bits in (4, 8):
            half = how.scale_bits == 16
            if how.zero:
                return cls(low=0, high=2**how.bits - 1, free=True, half=half)
            middle = cls(low=0, high=15, zero=MIDDLE, half=half)
            return middle if how.bits == 4 else cls(low=-127, high=127, half=half)
        raise ValueError(f"a weight cannot be rounded to {how}; integers have 4 or 8 bits, floats 8 without zero point")

    @property
    def dtype(self) -> torch.dtype:
        """What the numbers are stored in; e4m3 as the byte that it is."""
        return torch.int8 if self.low < 0 else torch.uint8

    def steps(self, weight: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        """`weight` in whole steps of `scale` from the zero point: what `data - zero` is, as floats."""
        steps = weight / scale
        if self.float8:
            return steps.clamp_(-LARGEST_E4M3, LARGEST_E4M3).to(E4M3).float()
        return steps.round_().clamp_(self.low - zero, self.high - zero)

    def fit(self, runs: Tensor, importance: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Scale and zero point `[runs, 1]` for each row of `runs [runs, length]`, by the least squared error.

        `importance` `[runs or 1, length]` weighs the squares (None: all alike).
        """
        scale, zero = self._fit(runs, importance)
        return (scale.clamp(SMALLEST_HALF, LARGEST_HALF).half().float() if self.half else scale), zero

    def _fit(self, runs: Tensor, importance: Tensor | None) -> tuple[Tensor, Tensor]:
        amax = runs.abs().amax(1, keepdim=True)
        zero = torch.full_like(amax, float(self.zero))
        if self.float8:
            return (amax / LARGEST_E4M3).clamp_(min=SMALLEST_SCALE), zero
        if not self.free and self.high > 15:
            return self._clip(runs, (amax / self.high).clamp_(min=SMALLEST_SCALE), importance), zero
        return self._search(runs, amax, importance)

    def _clip(self, runs: Tensor, scale: Tensor, importance: Tensor | None) -> Tensor:
        """A smaller scale for the rows whose rare extremes cost the others more than they are worth."""
        # Tame rows end here: neither rounding's error nor what a slightly smaller range cuts off makes them better.
        tenth = scale * 0.9
        everywhere = torch.ones(1, runs.shape[1]) if importance is None else importance
        rounding = (scale.square() - tenth.square()) * (everywhere.sum(1, keepdim=True) / 12)
        cut = (runs.abs() - tenth * self.high).relu_().square_().mul_(everywhere).sum(1, keepdim=True)
        wild = (cut < rounding)[:, 0].nonzero()[:, 0]
        if len(wild) == 0:
            return scale
        kept, extreme = runs[wild], scale[wild]
        weights = importance if importance is None or len(importance) == 1 else importance[wild]
        least, best = self._error(kept, extreme, weights), extreme
        for share in _SHARES_OF_8_BITS:
            tried = (extreme * share).clamp_(min=SMALLEST_SCALE)
            error = self._error(kept, tried, weights)
            best, least = torch.where(error < least, tried, best), torch.minimum(error, least)
        return scale.index_copy(0, wild, best)

    def _error(self, runs: Tensor, scale: Tensor, importance: Tensor | None) -> Tensor:
        error = self.steps(runs, scale, torch.tensor(float(self.zero))).mul_(scale).sub_(runs).square_()
        return (error if importance is None else error.mul_(importance)).sum(1, keepdim=True)

    def _search(self, runs: Tensor, amax: Tensor, importance: Tensor | None) -> tuple[Tensor, Tensor]:
        """Of some ranges, each followed by the least-squares scale of its own rounding, the best."""
        best = torch.full_like(amax, -1.0)
        best_scale, best_zero = (amax / MIDDLE).clamp_(min=SMALLEST_SCALE), torch.full_like(amax, float(self.zero))

        def consider(scale: Tensor, zero: Tensor) -> None:
            nonlocal best, best_scale, best_zero
            steps = self.steps(runs, scale, zero)
            weighted = steps if importance is None else steps * importance
            squares = (steps * weighted).sum(1, keepdim=True)
            product = (runs * weighted).sum(1, keepdim=True)
            # With the scale `product / squares` the squared error is that of the weights less this.
            gain = product / squares.clamp(min=1e-30) * product
            better = (gain > best) & (product > 0)
            best = torch.where(better, gain, best)
            best_scale = torch.where(better, (product / squares).clamp_(min=SMALLEST_SCALE), best_scale)
            best_zero = torch.where(better, zero, best_zero)

        for scale, zero in self._ranges(runs, amax):
            consider(scale, zero)
        consider(best_scale, best_zero)
        return best_scale, best_zero

    def _ranges(self, runs: Tensor, amax: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        if not self.free:
            for share in (8 / 7, *_SHARES_OF_4_BITS):
                scale = (amax * (share / (self.high - self.zero + 1))).clamp_(min=SMALLEST_SCALE)
                yield scale, torch.full_like(amax, float(self.zero))
            return
        low, high = runs.amin(1, keepdim=True).clamp_(max=0), runs.amax(1, keepdim=True).clamp_(min=0)
        for share in _SHARES_OF_4_BITS if self.high == 15 else (1.0,):
            scale = ((high - low) * (share / self.high)).clamp_(min=SMALLEST_SCALE)
            yield scale, (-low * share / scale).round_().clamp_(0, self.high)
