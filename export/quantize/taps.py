"""Rounding a convolution so that the taps of a channel make up for each other's errors.

Pixels that lie side by side are alike; behind a nearest-neighbour upsampling they are the same more often than not. So
what rounding one tap does to the output, the taps behind it can take back. This is GPTQ (Frantar et al., 2022) for
second moments that are blocks: the correlation of taps, which is the same for all channels, times the power of each
channel. Few samples tell 36 numbers well, where they say little about channels by channels, and all channels of all
outputs are rounded side by side, in taps² / 2 passes over a weight.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from .compensate import importance_of
from .formats import Weight
from .grid import Grid
from .nearest import Numbers, stored

# Weights at a time: what the passes touch then stays in the processor's cache.
_CHUNK: Final = 1 << 18
# Drawn off every correlation, lest taps that were alike in all samples take each other's errors to extremes. From 0.003
# to 0.03 the error is the same within 1 %.
_DOUBT: Final = 0.01
# What is left of an output's squared error may be this at most, or a smaller range is not looked for.
_WORTH: Final = 0.98
# Shares of the range that are tried, as long as they help.
_SHARES: Final = tuple(0.9**i for i in range(1, 19))


def pairs_taps(how: Weight, taps: int) -> bool:
    """Whether `tap_compensated` has that format: a scale for each output channel and no zero point of its own."""
    return taps > 1 and how.granularity == "channel" and not how.zero


def tap_compensated(weight: Tensor, how: Weight, grid: Grid, inputs: Tensor, taps: int) -> Numbers:
    """Data, scales and zero points of a weight `[out, channels · taps]`, as `plain` gives them, for these inputs.

    `inputs` `[rows, channels · taps]` are unfolded patches. The scale of an output channel holds its largest number, or
    is as much smaller as makes the channel's error least.
    """
    out, width = weight.shape
    moments, chunk = _moments(inputs, taps), max(1, _CHUNK // width)
    data, scale = torch.zeros(out, width, dtype=grid.dtype), grid.holding(weight)
    zero, error = torch.full((out, 1), float(grid.zero)), torch.full((out,), torch.inf)

    def improved(rows: Tensor, share: float) -> Tensor:
        """Rounds these outputs in that share of their range, and keeps what is better: of the rows that it returns."""
        part = weight[rows]
        tried = grid.holding(part).mul_(share)
        steps, found = _round(grid, part, tried, moments)
        better = found < error[rows]
        rows = rows[better]
        data[rows] = stored(grid, steps[better], zero[rows])
        scale[rows], error[rows] = tried[better], found[better]
        return rows

    def wild(rows: Tensor) -> Tensor:
        return rows[_wild(grid, weight[rows], scale[rows], error[rows], moments)]

    going = torch.cat([wild(improved(rows, 1.0)) for rows in _split(torch.arange(out), chunk)])
    for share in _SHARES:
        if len(going) == 0:
            break
        going = torch.cat([improved(rows, share) for rows in _split(going, chunk)])
    return data, scale, zero


@dataclass(frozen=True, eq=False, kw_only=True)
class _Moments:
    """Second moments of inputs, as far as they are told apart."""

    factor: Tensor
    """`[taps, taps]`: the upper Cholesky factor of the inverse of the taps' correlation."""
    power: Tensor
    """Of each channel, `[channels]`; those that were 0 count a little too."""

    @property
    def taps(self) -> int:
        return len(self.factor)


def _moments(inputs: Tensor, taps: int) -> _Moments:
    """Correlations are over all rows and channels, in float64, and safe to invert."""
    patches = inputs.reshape(-1, taps)
    products = (patches.T @ patches).double()
    size = products.diagonal().sqrt().clamp(min=1e-30)
    correlation = products / size / size[:, None] * (1 - _DOUBT)
    correlation.fill_diagonal_(1.0)
    power = importance_of(inputs).view(-1, taps).mean(1)
    return _Moments(factor=torch.linalg.cholesky(torch.linalg.inv(correlation), upper=True).float(), power=power)


def _wild(grid: Grid, weight: Tensor, scale: Tensor, error: Tensor, moments: _Moments) -> Tensor:
    """Whether a range that is a tenth smaller is worth trying: what it cuts off costs less than what it saves.

    The taps behind can take back some of what is cut off: in the mean, that leaves `1 / factor²` of it.
    """
    if grid.float8:  # numbers of all sizes are equally exact
        return torch.zeros(len(weight), dtype=torch.bool)
    over = weight.abs().sub_(scale * (_SHARES[0] * (grid.high - grid.zero))).relu_().square_()
    left = moments.factor.diagonal().square().reciprocal().mean()
    cut = over @ moments.power.repeat_interleave(moments.taps) * left
    return cut < (_WORTH - _SHARES[0] ** 2) * error


def _round(grid: Grid, weight: Tensor, scale: Tensor, moments: _Moments) -> tuple[Tensor, Tensor]:
    """Steps `[out, channels · taps]` and the squared error of each output that the moments tell, `[out]`."""
    factor = moments.factor
    wanted = weight.view(len(weight), -1, moments.taps).permute(2, 0, 1).contiguous()
    steps, error = torch.empty_like(wanted), torch.zeros(len(weight))
    zero = torch.tensor(float(grid.zero))
    for tap, value in enumerate(wanted):
        steps[tap] = grid.steps(value, scale, zero)
        off = value.addcmul_(steps[tap], scale, value=-1.0).div_(factor[tap, tap])
        for behind in range(tap + 1, moments.taps):
            wanted[behind].add_(off, alpha=-float(factor[tap, behind]))
        error += off.square_() @ moments.power
    return steps.permute(1, 2, 0).reshape(len(weight), -1), error


def _split(rows: Tensor, size: int) -> Iterator[Tensor]:
    return (rows[at : at + size] for at in range(0, len(rows), size))
