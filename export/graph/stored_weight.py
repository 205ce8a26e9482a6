"""Rounded weights as lazy ONNX tensors.

A layer is read and rounded when its bytes are asked for, written and forgotten: the whole network is never in memory.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ..quantize.formats import Weight
from ..quantize.quantization import Quantization
from ..quantize.rounded import Floats, Rounded
from .layers import Layer

Array = npt.NDArray[np.generic]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False, kw_only=True)
class StoredWeight:
    """A layer's weight `[out, ...]` in the numbers that `how` says; nothing is read before a tensor is asked for."""

    name: str
    """The layer's; tensors are named after it."""
    source: ir.TensorProtocol
    how: Weight
    inputs: Floats | None = None
    """Sampled inputs `[rows, in]` (a convolution's: patches), for which it is rounded well."""
    input_scale: Floats | None = None
    """`[in channels]`: the numbers that come are inputs divided by this, so the weight is multiplied with it before."""

    @classmethod
    def of(
        cls, layer: Layer, how: Weight, quantization: Quantization, input_scale: Floats | None = None
    ) -> "StoredWeight":
        """The weight of that layer, with the inputs that were sampled there if it takes as many numbers."""
        inputs = quantization.sampled(layer.name)
        if inputs is not None and inputs.shape[1] != math.prod(tuple(layer.weight_data().shape)[1:]):
            inputs = None  # of a convolution that was cut by taps
        return cls(name=layer.name, source=layer.weight_data(), how=how, inputs=inputs, input_scale=input_scale)

    @property
    def shape(self) -> tuple[int, ...]:
        """The weight's own shape, output channels first."""
        return tuple(int(side) for side in self.source.shape)

    @property
    def width(self) -> int:
        """Numbers of an output channel."""
        return int(np.prod(self.shape[1:]))

    @property
    def groups(self) -> int:
        """How many scales an output channel has."""
        return 1 if self.how.group is None else -(-self.width // self.how.group)

    def rounded(self) -> Rounded:
        """Its numbers and scales as a matrix `[out, width]`; the last weight that was rounded is kept."""
        return _round(self)

    def int8(self, *, transposed: bool = False) -> ir.LazyTensor:
        """int8 in its own shape; `transposed` gives `[in, out]`, which ONNX's MatMul takes."""
        shape = self.shape[::-1] if transposed else self.shape

        def compute() -> Array:
            data = self.rounded().data
            return np.ascontiguousarray(data.T) if transposed else data.reshape(shape)

        return self.tensor("int8", ir.DataType.INT8, shape, compute)

    def bits(self, part: str, dtype: ir.DataType, *, transposed: bool = False) -> ir.LazyTensor:
        """The same numbers as that type of 8 bits: `int8`, or what e4m3's bits stand for."""
        stored = self.int8(transposed=transposed)
        return self.tensor(part, dtype, tuple(stored.shape.numpy()), lambda: stored.numpy().view(dtype.numpy()))

    def scale(self, *, divided_by: Floats | None = None) -> ir.LazyTensor:
        """Scales `[out]`, or `[out, groups]`; `divided_by` `[out]` is how much a step of the output is worth."""
        shape = (self.shape[0],) if self.how.group is None else (self.shape[0], self.groups)

        def compute() -> Array:
            scale = self.rounded().scale
            return scale if divided_by is None else scale / divided_by

        return self.tensor("scale", ir.DataType.FLOAT, shape, compute)

    def no_zero_points(self) -> ir.Tensor:
        """The zero points `[out]` of int8 numbers, all zero, as an ONNX tensor of the weight's own.

        ONNX Runtime makes unsigned weights of ours where a processor needs it (`session.x64quantprecision`): it moves
        the zero points with them, makes wrong ones where there are none, and fails over those that weights share.
        """
        return ir.Tensor(np.zeros(self.shape[0], np.int8), name=f"{self.name}.weight_zero_point")

    def tensor(
        self, part: str, dtype: ir.DataType, shape: tuple[int, ...], compute: Callable[[], Array]
    ) -> ir.LazyTensor:
        """A lazy tensor of that part of the weight."""
        name = f"{self.name}.weight_{part}"
        return ir.LazyTensor(
            lambda: ir.Tensor(compute(), dtype=dtype, name=name), dtype=dtype, shape=ir.Shape(shape), name=name
        )


@lru_cache(maxsize=1)
def _round(weight: StoredWeight) -> Rounded:
    """The last layer alone is kept, since data, scales and bias are written one after the other.

    Keeping every layer's small scales would pin the allocator's freed pages between them: 5.4 GB for the full-size base
    U-Net, 0.8 without.
    """
    from ..quantize.rounding import round_weight

    matrix = np.asarray(weight.source.numpy(), np.float32).reshape(weight.shape[0], -1)
    inputs = weight.inputs
    if weight.input_scale is not None:
        scale = np.repeat(weight.input_scale, matrix.shape[1] // len(weight.input_scale))
        matrix, inputs = matrix * scale, None if inputs is None else inputs / scale
    return round_weight(matrix, weight.how, inputs=inputs, taps=math.prod(weight.shape[2:]))
