"""Weights to few bits: the one place that every target takes its numbers from."""

from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np
import torch
from torch import Tensor

from ..threads import torch_threads
from .compensate import compensated, importance_of
from .formats import Weight
from .grid import Grid
from .nearest import Numbers, kept, plain, rounded
from .rounded import Floats, Rounded
from .taps import pairs_taps, tap_compensated

# Damping that is tried. Measured on correlated inputs (192 rows, 1,280 columns, with and without outliers): from 0.3 to
# 1 the error is within 1 % of the least and a third below rounding to nearest; at 3 it is 5 % above the least.
_DAMPINGS: Final = (0.5, 3.0)
# One row in so many is held out, to choose by; with fewer than `_FEWEST_ROWS` there is nothing to choose by.
_HELD_OUT: Final = 4
_FEWEST_ROWS: Final = 16
# Outputs that the choice is made with: what inputs are like is the same for all of them.
_OUTPUTS: Final = 128
# What 8-bit integers of a convolution may be off by, relative to their product, before columns make up for each other
# one by one: weights with heavy tails in a layer or two, for which the time does not matter.
_COARSE: Final = 0.02
# What a rule must gain on rows that it has not seen: this share of the squared error, and as many standard errors of
# the gain over those rows. Without the latter, ten rows of independent inputs chose what was 3 % worse on others.
_LEAST_GAIN: Final = 0.01
_STANDARD_ERRORS: Final = 2.0
# Beyond this, sums of squares leave float32; no network has such numbers.
_LARGEST: Final = 1e15

Rule = Callable[[Tensor, Tensor], Numbers]


def round_weight(weight: Floats, how: Weight, *, inputs: Floats | None = None, taps: int = 1) -> Rounded:
    """A weight `[out, in]` rounded as `how` says; of a convolution `[out, channels · taps]`.

    int8 rows are clipped where their tails are heavy enough, 4-bit groups get the scale and zero point with the least
    squared error of a few, e4m3 the scale that holds the largest weight.

    With sampled `inputs` `[rows, in]` it is the error of `inputs @ weight.T` that counts. Of rounding to nearest, the
    same with scales chosen by what each column counts, and error-compensating rounding, that one is taken which is best
    on a quarter of the rows that it has not seen; then it is given all of them. Columns make up for each other one by
    one; in 8-bit integers of convolutions the taps of a channel do instead, in a tenth of the time, and columns
    only where the product is off by more than 2 %. This is in one thread: two have little to share, and where the
    machine is busy they wait for each other most of the time.

    Raises `ValueError` for a format that is no rounding, for a weight or inputs that are no finite matrix, for inputs
    of another width, and for taps that do not divide it.
    """
    grid = Grid.of(how)
    source = _matrix(weight, "weight")
    if inputs is None:
        return rounded(grid, how, *plain(source, how, grid))
    if taps < 1 or source.shape[1] % taps:
        raise ValueError(f"taps is {taps} and the weight is {weight.shape}; taps are equal parts of a row")
    rows = _matrix(inputs, "inputs")
    if rows.shape[1] != source.shape[1]:
        raise ValueError(f"inputs are {inputs.shape} and the weight is {weight.shape}; both need the same last axis")
    # Only their proportions matter, and squares of these stay in float32.
    rows = rows / rows.abs().amax().clamp(min=1e-30)
    with torch_threads(1):
        return rounded(grid, how, *_best_rule(source, how, grid, rows, taps)(source, rows))


def kept_of(weight: Floats, how: Weight) -> Floats:
    """What rounding to nearest leaves of a weight `[out, in]`: `round_weight(weight, how).dequantized()`, in less time.

    Raises `ValueError` for a format that is no rounding. Numbers that are not finite stay so.
    """
    found: Floats = kept(torch.from_numpy(weight), how, Grid.of(how)).numpy()
    return found


def _best_rule(weight: Tensor, how: Weight, grid: Grid, inputs: Tensor, taps: int) -> Rule:
    def nearest(part: Tensor, _: Tensor) -> Numbers:
        return plain(part, how, grid)

    def weighted(part: Tensor, rows: Tensor) -> Numbers:
        return plain(part, how, grid, importance_of(rows))

    def compensating(part: Tensor, rows: Tensor, damping: float) -> Numbers:
        return compensated(part, how, grid, rows, damping)

    def among_taps(part: Tensor, rows: Tensor) -> Numbers:
        return tap_compensated(part, how, grid, rows, taps)

    if len(inputs) < _FEWEST_ROWS:
        return nearest
    held = torch.arange(len(inputs)) % _HELD_OUT == 0
    seen, unseen = inputs[~held], inputs[held]
    part = weight[:: -(-len(weight) // _OUTPUTS)].contiguous()
    rules: list[Rule] = [weighted]
    best: Rule = nearest
    least = _row_errors(part, rounded(grid, how, *nearest(part, seen)), unseen)
    paired = pairs_taps(how, taps)
    if paired:
        rules.append(among_taps)
    coarse = float(least.sum()) > _COARSE**2 * float((unseen @ part.T).square_().sum(dtype=torch.float64))
    if coarse or not (paired and how.kind == "int" and how.bits == 8):
        rules += (partial(compensating, damping=damping) for damping in _DAMPINGS)
    for rule in rules:
        errors = _row_errors(part, rounded(grid, how, *rule(part, seen)), unseen)
        gain = least - errors
        doubt = _STANDARD_ERRORS * float(gain.std()) / len(gain) ** 0.5
        if float(gain.mean()) > max(doubt, _LEAST_GAIN * float(least.mean())):
            best, least = rule, errors
    return best


def _row_errors(weight: Tensor, numbers: Rounded, inputs: Tensor) -> Tensor:
    """Squared error of the product for every row of inputs, float64."""
    off = torch.from_numpy(numbers.dequantized()) - weight
    return (inputs @ off.T).square_().sum(1, dtype=torch.float64)


def _matrix(values: Floats, name: str) -> Tensor:
    if values.ndim != 2 or not values.size:
        raise ValueError(f"{name} must be a matrix with numbers in it; this one is {values.shape}")
    tensor = torch.from_numpy(np.require(values, np.float32, ["C", "W"]))
    low, high = (float(end) for end in tensor.aminmax())
    if not -_LARGEST <= low <= high <= _LARGEST:
        raise ValueError(f"{name} must be finite and at most {_LARGEST:g}; this one goes from {low:g} to {high:g}")
    return tensor
