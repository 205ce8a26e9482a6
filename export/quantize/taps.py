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
    moments = _moments(inputs, taps)
    data, scale = torch.empty(out, width, dtype=grid.dtype), torch.empty(out, 1)
    zero = torch.full((out, 1), float(grid.zero))
    for rows in _chunks(out, width):
        steps, scale[rows] = _fitted(grid, weight[rows], moments)
        data[rows] = stored(grid, steps, zero[rows])
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


def _fitted(grid: Grid, weight: Tensor, moments: _Moments) -> tuple[Tensor, Tensor]:
    """Steps `[out, channels · taps]` and scales `[out, 1]`."""
    scale = grid.holding(weight)
    steps, error = _round(grid, weight, scale, moments)
    if grid.float8:  # numbers of all sizes are equally exact
        return steps, scale
    going = _wild(grid, weight, scale, error, moments)
    for share in _SHARES:
        if len(going) == 0:
            break
        tried = grid.holding(weight[going]) * share
        tried_steps, tried_error = _round(grid, weight[going], tried, moments)
        better = tried_error < error[going]
        going = going[better]
        steps[going], scale[going], error[going] = tried_steps[better], tried[better], tried_error[better]
    return steps, scale


def _wild(grid: Grid, weight: Tensor, scale: Tensor, error: Tensor, moments: _Moments) -> Tensor:
    """The outputs for which a range that is a tenth smaller might be better: what it cuts off costs less than it saves.

    Of what is cut off, the taps behind can take back most; the last one's share is left.
    """
    over = weight.abs().sub_(scale * (_SHARES[0] * (grid.high - grid.zero))).relu_().square_()
    left = moments.factor.diagonal().square().reciprocal().min()
    cut = over.view(len(weight), -1, moments.taps).sum(2) @ moments.power * left
    return (cut < (1 - _SHARES[0] ** 2) * error).nonzero()[:, 0]


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


def _chunks(out: int, width: int) -> Iterator[slice]:
    rows = max(1, _CHUNK // width)
    return (slice(at, min(at + rows, out)) for at in range(0, out, rows))
