"""int8 weights with one scale per output channel, computed one layer at a time, when their bytes are asked for.

`rounding.py` finds the scales and rounds. The results are lazy ONNX tensors: saving a model quantizes a layer, writes
it and forgets it, so that the whole network is never in memory in any form.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from .formats import W8
from .rounded import Floats


@dataclass(frozen=True, eq=False, kw_only=True)
class Int8Weight:
    """A weight `[out, ...]` as `int8 ≈ weight / scale[out]`, from -127 to 127 (symmetric, no zero point)."""

    source: ir.TensorProtocol
    inputs: Floats | None = None
    """Sampled inputs `[rows, in · height · width]`: then it is the product with them that is rounded well."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The weight's own shape, output channels first."""
        return tuple(int(d) for d in self.source.shape)

    @property
    def scale(self) -> npt.NDArray[np.float32]:
        """`[out]`: the largest magnitude of each channel is 127 steps, or more where its tails are heavy."""
        return _quantize(self)[1]

    @property
    def data(self) -> npt.NDArray[np.int8]:
        """The int8 weight in its own shape."""
        return _quantize(self)[0]

    def dequantized(self) -> npt.NDArray[np.float32]:
        """What the int8 form stands for, as floats."""
        floats: npt.NDArray[np.float32] = self.data * self.scale.reshape(-1, *[1] * (len(self.shape) - 1))
        return floats

    def data_tensor(self, name: str, *, transposed: bool = False) -> ir.LazyTensor:
        """The int8 weight as a lazy ONNX tensor; `transposed` gives `[in, out]`, which ONNX's MatMul takes."""
        shape = self.shape[::-1] if transposed else self.shape

        def compute() -> ir.Tensor:
            return ir.Tensor(np.ascontiguousarray(self.data.T) if transposed else self.data, name=name)

        return ir.LazyTensor(compute, dtype=ir.DataType.INT8, shape=ir.Shape(shape), name=name)

    def scale_tensor(self, name: str) -> ir.LazyTensor:
        """The scales `[out]` as a lazy ONNX tensor."""
        shape = ir.Shape(self.shape[:1])
        return ir.LazyTensor(lambda: ir.Tensor(self.scale, name=name), dtype=ir.DataType.FLOAT, shape=shape, name=name)

    def zero_point_tensor(self, name: str) -> ir.Tensor:
        """The zero points `[out]`, all zero, as an ONNX tensor of the weight's own.

        ONNX Runtime makes unsigned weights of ours where a processor needs it (`session.x64quantprecision`): it moves
        the zero points with them, makes wrong ones where there are none, and fails over those that weights share.
        """
        return ir.Tensor(np.zeros(self.shape[0], np.int8), name=name)


@lru_cache(maxsize=1)
def _quantize(weight: Int8Weight) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Data and scale of one layer.

    The last layer alone is kept, since data, scale and bias are written one after the other. Keeping every layer's
    small scale would pin the allocator's freed pages between them: 5.4 GB for the full-size base U-Net, 0.8 without.
    """
    from .rounding import round_weight

    assert W8.weight is not None
    source = np.asarray(weight.source.numpy(), np.float32).reshape(weight.shape[0], -1)
    found = round_weight(source, W8.weight, inputs=weight.inputs)
    data: npt.NDArray[np.int8] = found.data.reshape(weight.shape).astype(np.int8, copy=False)
    return data, found.scale


@dataclass(frozen=True, kw_only=True)
class Uint8Range:
    """Asymmetric 8-bit activations: `uint8 = round(x / scale) + zero_point`."""

    scale: float
    zero_point: int

    @classmethod
    def over(cls, low: float, high: float) -> "Uint8Range":
        """The range that holds `[low, high]` and represents 0 exactly (padding and ReLU-like floors need that)."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = float(np.float32((high - low) / 255)) or 1.0
        return cls(scale=scale, zero_point=int(np.clip(round(-low / scale), 0, 255)))

    def round_trip(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """What is left of `x` after quantizing and dequantizing."""
        steps = np.clip(np.rint(x / np.float32(self.scale)) + self.zero_point, 0, 255) - self.zero_point
        floats: npt.NDArray[np.float32] = (steps * np.float32(self.scale)).astype(np.float32)
        return floats
