"""Distances: how far a lowered component or a picture is from the unquantized one, and which layers are to blame."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...engine.specs import Role
from ..quantize.formats import KEEP, Format, Kind
from ..quantize.recipes import Recipe
from .calibrate import Calibration

if TYPE_CHECKING:
    from ...engine.specs import Arrays
    from .streamed import StreamedModule

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


@dataclass(frozen=True, kw_only=True)
class LayerError:
    """Relative L2 error of one layer's output when that layer alone is quantized."""

    layer: str
    format: Format
    relative_error: float


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


def worst_layers(
    module: "StreamedModule",
    role: Role,
    recipe: Recipe,
    calibration: Calibration | None,
    samples: "Iterable[Arrays]",
    *,
    count: int = 5,
) -> list[LayerError]:
    """Simulate every quantized layer on the reference's own inputs; the `count` worst, worst first."""
    from torch import nn

    kinds = {nn.Linear: Kind.LINEAR, nn.Conv2d: Kind.CONV, nn.Embedding: Kind.EMBEDDING}
    formats: dict[str, Format] = {}
    sums: dict[str, _Sums] = {}
    handles = []
    for name, layer in module.module.named_modules():
        kind = kinds.get(type(layer))
        format = recipe.format(role, kind, name) if kind else KEEP
        if format.quantized:
            formats[name] = format
            hook = _compare_layer(sums, name, format, calibration)
            handles.append(layer.register_forward_hook(hook, prepend=True))  # before the weights are forgotten
    try:
        for sample in samples:
            module(sample)
    finally:
        for handle in handles:
            handle.remove()
    errors = [
        LayerError(layer=name, format=formats[name], relative_error=total.relative_error)
        for name, total in sums.items()
    ]
    return sorted(errors, key=lambda e: (-_nan_is_worst(e.relative_error), e.layer))[:count]


def _compare_layer(sums: "dict[str, _Sums]", name: str, format: Format, calibration: Calibration | None) -> Any:
    import onnx_ir as ir
    import torch

    from ..quantize.int8 import Int8Weight, Uint8Range

    def hook(layer: Any, inputs: tuple[Any, ...], output: Any) -> None:
        exact = layer.weight
        weight = torch.from_numpy(Int8Weight(source=ir.Tensor(exact.numpy(), name=name)).dequantized())
        x, result = inputs[0], None
        if format.activation is not None and not format.static:
            low, high = (float(edge) for edge in x.aminmax())
            x = torch.from_numpy(Uint8Range.over(low, high).round_trip(x.numpy()))
        elif format.static and calibration is not None:
            x = torch.from_numpy(Uint8Range.over(*calibration.ranges[name][:2]).round_trip(x.numpy()))
        layer._parameters["weight"] = torch.nn.Parameter(weight, requires_grad=False)
        try:
            result = type(layer).forward(layer, x).numpy()
        finally:
            layer._parameters["weight"] = exact
        if format.static and calibration is not None:
            result = Uint8Range.over(*calibration.ranges[name][2:]).round_trip(result)
        sums.setdefault(name, _Sums()).add(output.numpy(), result)

    return hook


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
