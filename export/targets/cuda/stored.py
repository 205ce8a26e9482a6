"""What is stored of a network's parameters, in the layouts that our kernels read, made one tensor at a time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from ...quantize.formats import W4_HALVES, Format
from ...quantize.rounded import Floats

if TYPE_CHECKING:
    from torch import Tensor

    from ...graph.master import WeightSource
    from ...quantize.quantization import Quantization

Array = npt.NDArray[np.generic]
LEAST_STEP = 2.0**-24
"""Of an input's channel: the smallest half, below which nothing was that halves could hold."""


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A norm's scale or offset, or a table of words, in halves, under its state-dict name."""

    name: str


@dataclass(frozen=True, kw_only=True)
class Weight:
    """The weight of one layer, or of several whose outputs stand side by side, in a format.

    `picture`: a convolution's, `[n, c, kh, kw]`, which kernels read as `[n, kh, kw, c]`; `rows` and `columns` are then
    the output channels that it is to have, and the input channels of one picture and of the one beside it. Output
    channels beyond the layer's are zeros; each picture's are padded to a multiple of 16.
    """

    layers: tuple[str, ...]
    format: Format
    picture: bool = False
    rows: int = 0
    columns: tuple[int, int] = (0, 0)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One tensor of a weight: its numbers, the scales of its output channels, or the biases (halves).

    Numbers are int8, halves, or for 4 bits the bytes of `kernels.weight_only.pack`, whose scales are those of groups.
    """

    weight: Weight
    part: Literal["numbers", "scale", "bias"]


@dataclass(frozen=True, kw_only=True)
class Inverse:
    """What each channel of a layer's input is multiplied with before it is rounded to int8, float32."""

    layer: str


Stored = Parameter | Part | Inverse


class Packer:
    """Makes the tensors; the last weight is kept between its numbers and its scales."""

    def __init__(self, source: "WeightSource", quantization: "Quantization") -> None:
        self._source = source
        self._quantization = quantization
        self._last: tuple[Weight, Mapping[str, Array]] | None = None

    def array(self, stored: Stored) -> Array:
        """The tensor, contiguous."""
        if isinstance(stored, Inverse):
            return np.reciprocal(self._input_scale(stored.layer))
        if isinstance(stored, Parameter):
            return self._read(stored.name).numpy().astype(np.float16)
        weight = stored.weight
        if stored.part == "bias":
            bias = np.concatenate([self._read(f"{layer}.bias").numpy() for layer in weight.layers])
            return _with_rows(bias.astype(np.float16), weight.rows)
        if self._last is None or self._last[0] != weight:
            self._last = None  # first: one weight is held at a time
            parts = [self._packed(layer, weight) for layer in weight.layers]
            self._last = (
                weight,
                {name: _with_rows(np.concatenate([part[name] for part in parts]), weight.rows) for name in parts[0]},
            )
        return self._last[1][stored.part]

    def _read(self, name: str) -> "Tensor":
        return self._source.tensor(name).float()

    def _input_scale(self, layer: str) -> Floats:
        """`[in]` of a layer's input."""
        found = self._quantization.input_scale(layer)
        if found is None:
            raise ValueError(f"{layer} has no calibrated scales: observe it before lowering")
        kept: Floats = np.maximum(found.astype(np.float32), np.float32(LEAST_STEP))
        return kept

    def _packed(self, layer: str, weight: Weight) -> dict[str, Array]:
        import torch

        from ....kernels.weight_only.pack import pack_nibbles
        from ...quantize.rounding import round_weight

        values = self._read(f"{layer}.weight")
        if weight.format.weight == W4_HALVES.weight:
            numbers, scale = four_bits(values, self._quantization.sampled(layer))
            return {"numbers": pack_nibbles(numbers).numpy(), "scale": scale.half().numpy()}
        if not weight.format.quantized:
            return {"numbers": _laid_out(values, weight).numpy().astype(np.float16)}
        assert weight.format.weight is not None
        matrix: Floats = values.flatten(1).numpy()
        inputs = self._quantization.sampled(layer)
        if weight.format.signed:  # what comes is the input divided by its channels' scales
            steps = self._input_scale(layer)
            matrix = matrix * steps
            inputs = None if inputs is None else (inputs / steps).astype(np.float32)
        found = round_weight(matrix, weight.format.weight, inputs=inputs)
        numbers = torch.from_numpy(found.data).view(values.shape)
        return {"numbers": _laid_out(numbers, weight).numpy(), "scale": found.scale.astype(np.float32)}


def four_bits(values: "Tensor", inputs: Floats | None) -> "tuple[Tensor, Tensor]":
    """A weight in 4 bits around 8: numbers `[n, k]` or `[n, kh, kw, c]` uint8, and the scales of groups of 64 along c.

    `values`: as checkpoints have it, channels before taps. `inputs`: sampled ones, likewise `[rows, k]`.
    """
    import torch

    from ...quantize.rounding import round_weight

    assert W4_HALVES.weight is not None
    group = W4_HALVES.weight.group
    assert group is not None
    laid = values.permute(0, *range(2, values.ndim), 1).contiguous()  # a filter's taps before its channels
    if inputs is not None and values.ndim > 2:
        patches = inputs.reshape(len(inputs), *values.shape[1:])
        inputs = patches.transpose(0, *range(2, values.ndim), 1).reshape(len(inputs), -1)
    found = round_weight(laid.flatten(1).numpy(), W4_HALVES.weight, inputs=inputs)
    numbers = torch.from_numpy(found.data).view(laid.shape)
    return numbers, torch.from_numpy(found.scale).view(*laid.shape[:-1], laid.shape[-1] // group)


def _laid_out(values: "Tensor", weight: Weight) -> "Tensor":
    """`[n, k]`, or `[n, kh, kw, c]` with the columns' padding."""
    import torch

    if not weight.picture:
        return values.contiguous()
    columns = [c for c in weight.columns if c]
    parts = [torch.nn.functional.pad(p, (0, 0, 0, 0, 0, -p.shape[1] % 16)) for p in torch.split(values, columns, 1)]
    return torch.cat(parts, 1).permute(0, 2, 3, 1).contiguous()


def _with_rows(values: Array, rows: int) -> Array:
    """Zeros behind the last row, up to so many."""
    if rows <= len(values):
        return values
    return np.concatenate([values, np.zeros((rows - len(values), *values.shape[1:]), values.dtype)])
