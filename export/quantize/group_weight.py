"""Weights in any rounded format, computed one layer at a time, when their numbers are asked for."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from .formats import Weight
from .rounded import Bytes, Floats, Rounded


@dataclass(frozen=True, eq=False, kw_only=True)
class GroupWeight:
    """A weight `[out, ...]` in 4 or 8 bits, in groups or not; a sibling of `Int8Weight`, which knows ONNX's own forms.

    How a target packs the numbers is its own affair: it makes lazy tensors that ask for them here.
    """

    source: ir.TensorProtocol
    how: Weight
    inputs: Floats | None = None
    """Sampled inputs `[rows, in · height · width]`: then it is the product with them that is rounded well."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns; what lies behind the first axis counts as one."""
        out, *behind = (int(side) for side in self.source.shape)
        return out, int(np.prod(behind, dtype=np.int64))

    @property
    def data(self) -> Bytes:
        """`[out, in]`, see `Rounded`."""
        return self.rounded.data

    @property
    def scale(self) -> Floats:
        """`[out, groups]`, or `[out]` without groups."""
        return self.rounded.scale

    @property
    def zero(self) -> npt.NDArray[np.uint8] | None:
        """As `scale`, or None."""
        return self.rounded.zero

    @property
    def rounded(self) -> Rounded:
        """All of them; reads the weight, unless it was the last that was asked for."""
        return _round(self)


@lru_cache(maxsize=1)
def _round(weight: GroupWeight) -> Rounded:
    """One layer; only the last one is kept, for the same reason as in `int8.py`."""
    from .rounding import round_weight

    source = np.asarray(weight.source.numpy(), np.float32).reshape(weight.shape)
    return round_weight(source, weight.how, inputs=weight.inputs)
