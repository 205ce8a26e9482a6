"""Weights to the nearest numbers of their format, some rows at a time."""

from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor

from .formats import Weight
from .grid import E4M3, Grid
from .rounded import Rounded

# Weights at a time: what the steps of a search touch then stays in the processor's cache.
_CHUNK: Final = 1 << 18

Numbers = tuple[Tensor, Tensor, Tensor]
"""Data `[out, in]`, uint8 or int8; scale and zero point `[out, groups]` as floats."""


def plain(weight: Tensor, how: Weight, grid: Grid, importance: Tensor | None = None) -> Numbers:
    """Every number to the nearest one.

    `importance` `[in]` weighs the squared errors that scales are chosen by.
    """
    out, width = weight.shape
    data = torch.empty(out, width, dtype=grid.dtype)
    scales: list[Tensor] = []
    zeros: list[Tensor] = []
    for rows, steps, scale, zero in _parts(weight, how, grid, importance):
        data[rows] = stored(grid, steps, zero).view(len(data[rows]), -1)[:, :width]
        scales.append(scale)
        zeros.append(zero)
    return data, torch.cat(scales).view(out, -1), torch.cat(zeros).view(out, -1)


def kept(weight: Tensor, how: Weight, grid: Grid) -> Tensor:
    """What `plain` leaves of a weight, without making its bytes: where only the error is asked for."""
    values = torch.empty_like(weight)
    for rows, steps, scale, _ in _parts(weight, how, grid, None):
        values[rows] = steps.mul_(scale).view(len(values[rows]), -1)[:, : weight.shape[1]]
    return values


def _parts(
    weight: Tensor, how: Weight, grid: Grid, importance: Tensor | None
) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
    """Some rows, and of the numbers there that share a scale the steps `[runs, length]`, scale and zero `[runs, 1]`."""
    out, width = weight.shape
    length = width if how.group is None else how.group
    groups = -(-width // length)
    chunk = max(1, _CHUNK // width)
    shared = _shared_scale(weight, grid) if how.granularity == "tensor" else None
    for at in range(0, out, chunk):
        rows = slice(at, min(at + chunk, out))
        # Zeros behind a last, shorter group are exact in every format and move no scale.
        runs = pad(weight[rows], groups * length).view(-1, length)
        weights = None if importance is None else pad(importance[None], groups * length).view(groups, length)
        weights = None if weights is None else weights.repeat(rows.stop - at, 1) if groups > 1 else weights
        scale, zero = grid.fit(runs, weights) if shared is None else (one.expand(len(runs), 1) for one in shared)
        yield rows, grid.steps(runs, scale, zero), scale, zero


def stored(grid: Grid, steps: Tensor, zero: Tensor) -> Tensor:
    """Steps from the zero point as the bytes that stand for them."""
    if grid.float8:
        return steps.to(E4M3).view(torch.int8)
    return (steps + zero).to(grid.dtype)


def rounded(grid: Grid, how: Weight, data: Tensor, scale: Tensor, zero: Tensor) -> Rounded:
    """The same numbers as arrays."""
    if how.group is None:
        scale, zero = scale[:, 0], zero[:, 0]
    zeros = zero.to(torch.uint8).numpy() if grid.free else None
    return Rounded(how=how, data=data.numpy(), scale=scale.contiguous().numpy(), zero=zeros)


def pad(rows: Tensor, width: int) -> Tensor:
    """`rows` with zeros on the right up to that width."""
    return torch.nn.functional.pad(rows, (0, width - rows.shape[1])) if rows.shape[1] < width else rows.contiguous()


def _shared_scale(weight: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """One scale and zero point for all, from the extremes."""
    return grid.fit(torch.stack(weight.aminmax())[None])
