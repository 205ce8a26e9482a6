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
        # Ends that are tensors would take ten times as long.
        if not self.free:
            return steps.round_().clamp_(self.low - self.zero, self.high - self.zero)
        return steps.round_().add_(zero).clamp_(self.low, self.high).sub_(zero)

    def fit(self, runs: Tensor, importance: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Scale and zero point `[runs, 1]` for each row of `runs [runs, length]`, by the least squared error.

        `importance` `[runs or 1, length]` weighs the squares (None: all alike).
        """
        scale, zero = self._fit(runs, importance)
        return (scale.clamp(SMALLEST_HALF, LARGEST_HALF).half().float() if self.half else scale), zero

    def _fit(self, runs: Tensor, importance: Tensor | None) -> tuple[Tensor, Tensor]:
        amax = _amax(runs)
        zero = torch.full_like(amax, float(self.zero))
        if self.float8:
            return self.holding(runs), zero
        if not self.free and self.high > 15:
            return self._clip(runs, self.holding(runs), importance), zero
        return self._search(runs, amax, importance)

    def holding(self, runs: Tensor) -> Tensor:
        """The least scale `[runs, 1]` with which every number of a row is in range, its sign aside."""
        return (_amax(runs) / (self.high - self.zero)).clamp_(min=SMALLEST_SCALE)

    def _clip(self, runs: Tensor, scale: Tensor, importance: Tensor | None) -> Tensor:
        """A smaller scale for the rows whose rare extremes cost the others more than they are worth."""
        width = runs.shape[1]
        # Cutting a tenth off the largest number costs a hundredth of its square, whatever else is cut.
        if importance is None and (1 - 0.9**2) * width / 12 <= (0.1 * self.high) ** 2:
            return scale
        # Tame rows end here: neither rounding's error nor what a slightly smaller range cuts off makes them better.
        tenth = scale * 0.9
        end = tenth * self.high
        cut = _energy(runs.abs().sub_(end).relu_(), importance)
        counts = float(width) if importance is None else importance.sum(1, keepdim=True)
        wild = (cut < (scale.square() - tenth.square()) * counts / 12)[:, 0].nonzero()[:, 0]
        if len(wild) == 0:
            return scale
        weights = importance if importance is None or len(importance) == 1 else importance[wild]
        return scale.index_copy(0, wild, self._narrowed(runs[wild], scale[wild], weights))

    def _narrowed(self, runs: Tensor, scale: Tensor, importance: Tensor | None) -> Tensor:
        """The best share of the scale of each row.

        What is cut off is convex in the range's end, and so is what rounding costs: rows whose error has grown twice
        in a row are done.
        """
        best, least = scale.clone(), self._error(runs, scale, importance)
        last = least
        rises = torch.zeros_like(least)
        left = torch.arange(len(runs))
        for share in _SHARES_OF_8_BITS:
            tried = (scale * share).clamp_(min=SMALLEST_SCALE)
            error = self._error(runs, tried, importance)
            better = error < least
            best[left] = torch.where(better, tried, best[left])
            least = torch.minimum(error, least)
            rises = torch.where(error > last, rises + 1, 0.0)
            last = error
            going = (rises < 2)[:, 0].nonzero()[:, 0]
            if len(going) == 0:
                break
            if len(going) < len(left):
                runs, scale, left = runs[going], scale[going], left[going]
                least, last, rises = least[going], last[going], rises[going]
                importance = importance if importance is None or len(importance) == 1 else importance[going]
        return best

    def _error(self, runs: Tensor, scale: Tensor, importance: Tensor | None) -> Tensor:
        exact = runs / scale
        steps = exact.round().clamp_(self.low - self.zero, self.high - self.zero)
        return _energy(steps.sub_(exact), importance).mul_(scale.square())

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


def _amax(runs: Tensor) -> Tensor:
    """The largest magnitude of each row, `[runs, 1]`."""
    return torch.maximum(runs.amax(1, keepdim=True), -runs.amin(1, keepdim=True))


def _energy(off: Tensor, importance: Tensor | None) -> Tensor:
    """The weighed sum of squares of each row, `[runs, 1]`; `off` is changed."""
    if importance is None:
        energy: Tensor = torch.linalg.vector_norm(off, dim=1, keepdim=True).square_()
        return energy
    if len(importance) == 1:
        return off.square_() @ importance.T
    return off.square_().mul_(importance).sum(1, keepdim=True)
