"""Function-preserving smoothing: channels that are large become smaller, and the weights that read them larger.

In real numbers the network stays what it is, and nothing is computed at run time: factors go into norms and weights.
The factor of a channel is `amax(input)^a / amax(weight)^(1-a)` (SmoothQuant, Xiao et al. 2023, formula 4), so that a
checkpoint whose channels were scaled and scaled back comes out as the same one. How much of the difficulty goes into
the weights, `a`, is chosen for each place by the error of the products with rounded numbers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from .calibration import Calibration, LayerStatistics
from .formats import Format
from .layer_error import layer_error, some_outputs
from .rounded import Floats
from .sites import Pair, Site, find_pairs, find_sites

Chosen = Callable[[str], Format]
"""What the inputs and the weight of a layer are to be rounded to."""


class Source(Protocol):
    """What is asked of `export.checkpoint.weights.Weights`."""

    def tensor(self, name: str) -> Tensor:
        """The tensor of that state-dict name, read now."""


class Part(Source, Protocol):
    """Likewise, with the names of all tensors."""

    def names(self) -> list[str]:
        """All names, sorted."""


STRENGTHS = (0.15, 0.3, 0.5, 0.65, 0.8)
LARGEST = 1e5
"""Of a factor; its inverse is the smallest."""
_DEAD = 1e-6
"""Of the largest channel: what is smaller is taken for that, lest a channel that was never used sets a factor."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Smoothing:
    """Factors of the parameters of one part of a checkpoint."""

    rows: Mapping[str, Floats] = field(default_factory=dict)
    """Parameter → what its first rows are multiplied by."""
    columns: Mapping[str, Floats] = field(default_factory=dict)
    """Layer → what the input channels of its weight are multiplied by, and its inputs are divided by."""

    def outputs(self, layer: str, width: int) -> Floats | None:
        """What the output channels of a layer are multiplied by; None: they are as they were."""
        found = self.rows.get(f"{layer}.weight")
        if found is None or len(found) == width:
            return found
        return np.concatenate([found, np.ones(width - len(found), np.float32)])

    def statistics(self, layer: str, seen: LayerStatistics) -> LayerStatistics:
        """What the layer would have shown in the smoothed network."""
        columns = self.columns.get(layer)
        taken = None if columns is None else np.float32(1) / columns
        given = self.outputs(layer, len(seen.output_lows[0]))
        return seen if taken is None and given is None else seen.scaled(taken, given)


class Smoothed:
    """Weights with their factors; in float32 where they have any."""

    def __init__(self, weights: Source, smoothing: Smoothing) -> None:
        self._weights = weights
        self._smoothing = smoothing

    def tensor(self, name: str) -> Tensor:
        """See `Weights.tensor`."""
        tensor = self._weights.tensor(name)
        rows = self._smoothing.rows.get(name)
        columns = self._smoothing.columns.get(name.removesuffix(".weight")) if name.endswith(".weight") else None
        if rows is None and columns is None:
            return tensor
        tensor = tensor.to(torch.float32, copy=True)
        if rows is not None:
            tensor[: len(rows)] *= torch.from_numpy(rows).view(-1, *[1] * (tensor.dim() - 1))
        if columns is not None:
            tensor *= torch.from_numpy(columns).view(1, -1, *[1] * (tensor.dim() - 2))
        return tensor


def find_smoothing(weights: Part, calibration: Calibration, format: Chosen) -> Smoothing:
    """The factors of one part of a checkpoint; `format` tells what a layer's inputs and weight are to be rounded to.

    Places whose layers were not watched stay as they are. Memory: one place at a time.
    """
    rows: dict[str, Floats] = {}
    columns: dict[str, Floats] = {}
    for site in find_sites(weights.names()):
        if any(reader not in calibration.layers for reader in site.readers):
            continue
        factors = _site(site, weights, calibration, format)
        if factors is not None:
            columns |= dict.fromkeys(site.readers, factors)
            for writer in site.writers:
                rows[writer] = _times(rows.get(writer), np.float32(1) / factors)
    for pair in find_pairs(weights.names()):
        layers = [calibration.layers.get(side[0].removesuffix(".weight")) for side in (pair.query, pair.key)]
        if layers[0] is not None and layers[1] is not None:
            _pair(pair, layers[0], layers[1], rows)
    return Smoothing(rows=rows, columns=columns)


def smoothing_factors(inputs: Floats, weights: Floats, strength: float) -> Floats:
    """`[channels]` of largest magnitudes of inputs and of the weights that read them → factors around 1."""
    taken, given = (np.maximum(amax, _DEAD * amax.max(initial=0)) for amax in (inputs, weights))
    factors = taken.astype(np.float64) ** strength / np.maximum(given.astype(np.float64) ** (1 - strength), 1e-30)
    factors = np.where((taken > 0) & (given > 0), factors, 1.0)
    factors /= np.exp(np.log(factors).mean())
    return factors.clip(1 / LARGEST, LARGEST).astype(np.float32)


def _site(site: Site, weights: Part, calibration: Calibration, format: Chosen) -> Floats | None:
    """The best factors of a place; None: without any is best.

    Each half of the sampled inputs judges what the other half suggests. Judged by its own inputs, a large strength
    looked best nearly everywhere, and lost half as much again on prompts that were not watched.
    """
    seen = calibration.layers[site.readers[0]]
    taken = seen.input_size
    read, given = {}, np.zeros_like(taken)
    for reader in site.readers:
        weight = weights.tensor(f"{reader}.weight").flatten(1)
        if weight.dtype.itemsize == 1:  # of which torch knows no extremes
            weight = weight.float()
        given = np.maximum(given, torch.maximum(weight.amax(0), -weight.amin(0)).float().numpy())
        if format(reader).quantized:
            read[reader] = some_outputs(weight).to(torch.float32, copy=True).numpy()
    middle = len(seen.inputs) // 2
    halves = [_Half.of(read, seen.inputs[:middle]), _Half.of(read, seen.inputs[middle:])]
    best, least = None, sum(_error(read, half, half.inputs, format) for half in halves)
    for strength in STRENGTHS:
        error = 0.0
        for known, unknown in (halves, halves[::-1]):
            factors = smoothing_factors(np.abs(known.inputs).max(0), given, strength)
            scaled = {reader: weight * factors for reader, weight in read.items()}
            error += _error(scaled, unknown, unknown.inputs / factors, format)
        if error < least:
            best, least = strength, error
    return None if best is None else smoothing_factors(taken, given, best)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Half:
    """Half of the inputs that were seen, and the products that smoothing leaves as they are."""

    inputs: Floats
    products: Mapping[str, Tensor]

    @classmethod
    def of(cls, read: Mapping[str, Floats], inputs: Floats) -> "_Half":
        """With the weights of each reader."""
        x = torch.from_numpy(inputs)
        return cls(inputs=inputs, products={name: x @ torch.from_numpy(weight).T for name, weight in read.items()})


def _error(read: Mapping[str, Floats], half: _Half, inputs: Floats, format: Chosen) -> float:
    """Sum over the layers of the relative squared error of their products, of weights and inputs with factors."""
    total = 0.0
    for reader, weight in read.items():
        error, reference = layer_error(weight, inputs, format(reader), exact=half.products[reader])
        total += error / reference if reference else 0.0
    return total


def _pair(pair: Pair, query: LayerStatistics, key: LayerStatistics, rows: dict[str, Floats]) -> None:
    """Make the channels of queries as large as those of keys."""
    largest = [side.output_size for side in (query, key)]
    if min(amax.max(initial=0) for amax in largest) == 0:
        return
    queries, keys = (np.maximum(amax, _DEAD * amax.max()).astype(np.float64) for amax in largest)
    factors = np.sqrt(queries / keys).clip(1 / LARGEST, LARGEST).astype(np.float32)
    for writer in pair.query:
        rows[writer] = _times(rows.get(writer), np.float32(1) / factors)
    for writer in pair.key:
        rows[writer] = _times(rows.get(writer), factors)


def _times(known: Floats | None, factors: Floats) -> Floats:
    """Rows have one factor each, whatever it comes from."""
    assert known is None or len(known) == len(factors), "a parameter is written to at two places"
    return factors if known is None else known * factors
