"""Error-compensating rounding: what rounding some columns does to a product is made up for by the columns behind them.

This is GPTQ (Frantar et al., 2022), for fewer inputs than columns: with `x = inputs / spread`, the inverse of
`xᵀx + damping` restricted to the columns from some point on is `1 - xᵀ (x xᵀ + damping)⁻¹ x` but for a factor. So all
that is inverted is the rows' small Gram matrix, from which columns are taken away as they are done, and all that is
carried along is the product's error. No matrix of columns by columns is ever made, whatever the width.

Columns are scaled to the same power first. Damping then draws second moments towards their diagonal instead of towards
a multiple of the identity, and columns of any magnitude are damped alike.
"""

from typing import Final

import torch
from torch import Tensor

from .formats import Weight
from .grid import Grid
from .nearest import Numbers, pad, plain, stored

# Columns that are rounded one after the other before the rest hears of it.
_BLOCK: Final = 64
# More rows than these are thinned out: their Gram matrix is inverted for every block.
_MOST_ROWS: Final = 512
# Outputs whose scales are searched for at a time.
_FITTED: Final = 4096


def importance_of(inputs: Tensor) -> Tensor:
    """What an error in each column counts in the product, `[in]`; columns that were 0 count a little too."""
    power = inputs.square().mean(0)
    return power + power.mean().mul(1e-3).clamp(min=1e-30)


def compensated(weight: Tensor, how: Weight, grid: Grid, inputs: Tensor, damping: float) -> Numbers:
    """Data, scales and zero points of a weight `[out, in]`, as `plain` gives them, for the product with these inputs.

    `damping` is relative to the power of a column: small for inputs that have said all, large for few of them.
    """
    inputs = inputs[:: -(-len(inputs) // _MOST_ROWS)]
    importance = importance_of(inputs)
    spread = importance.mul(len(inputs)).sqrt_()
    x = (inputs / spread).double()
    gram = x @ x.T
    gram.diagonal().add_(damping)
    length = how.group
    data, scale, zero = plain(weight, how, grid, importance) if length is None else _room(weight, grid, length)
    error = torch.zeros(len(inputs), len(weight))
    for at in range(0, weight.shape[1], length or _BLOCK):
        columns = slice(at, min(at + (length or _BLOCK), weight.shape[1]))
        own, here = x[:, columns], spread[columns, None]
        pulled = torch.cholesky_solve(own, torch.linalg.cholesky(gram)).T
        exact = weight[:, columns].T
        wanted = torch.addmm(exact, (pulled / here).float(), error, alpha=-1.0)
        group = 0 if length is None else at // length
        if length is not None:
            runs, weights = pad(wanted.T.contiguous(), length), pad(importance[None, columns], length)
            scale[:, group : group + 1], zero[:, group : group + 1] = _fit(grid, runs, weights)
        left = torch.eye(own.shape[1], dtype=torch.float64) - pulled @ own
        factor = torch.linalg.cholesky(left, upper=True).float() / here.T
        steps, kept = _columns(grid, wanted, factor, scale[:, group].contiguous(), zero[:, group].contiguous())
        data[:, columns] = stored(grid, steps, zero[:, group]).T
        error.addmm_(inputs[:, columns], kept.sub_(exact))
        gram -= own @ own.T
    return data, scale, zero


def _columns(grid: Grid, wanted: Tensor, factor: Tensor, scale: Tensor, zero: Tensor) -> tuple[Tensor, Tensor]:
    """Steps and what they stand for, `[columns, out]`; `wanted` is changed on the way."""
    steps, kept = torch.empty_like(wanted), torch.empty_like(wanted)
    for column, value in enumerate(wanted):
        steps[column] = grid.steps(value, scale, zero)
        torch.mul(steps[column], scale, out=kept[column])
        behind = wanted[column + 1 :]
        behind.addr_(factor[column, column + 1 :], (value - kept[column]).div_(factor[column, column]), alpha=-1.0)
    return steps, kept


def _fit(grid: Grid, runs: Tensor, importance: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and zero point of each row, some rows at a time: what a search touches then stays in the cache."""
    parts = [grid.fit(runs[at : at + _FITTED], importance) for at in range(0, len(runs), _FITTED)]
    return torch.cat([scale for scale, _ in parts]), torch.cat([zero for _, zero in parts])


def _room(weight: Tensor, grid: Grid, length: int) -> Numbers:
    out, width = weight.shape
    groups = -(-width // length)
    return torch.empty(out, width, dtype=grid.dtype), torch.empty(out, groups), torch.empty(out, groups)
