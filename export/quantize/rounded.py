"""A rounded weight: its numbers, their scales and zero points."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .formats import Weight

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.int8] | npt.NDArray[np.uint8]

# What 4-bit numbers without a zero point of their own count from: ONNX Runtime's MatMulNBits does as well.
MIDDLE = 8


@dataclass(frozen=True, eq=False, kw_only=True)
class Rounded:
    """A weight `[out, in]` as `(data - zero) * scale`, rounded as `how` says.

    The last of a row's groups is shorter than the others where their size does not divide `in`.
    """

    how: Weight
    data: Bytes
    """`[out, in]`: int8 from -127 to 127; the bits of e4m3 as int8; uint8 where the weight has zero points, and for
    4 bits (0 to 15)."""
    scale: Floats
    """`[out]`, or `[out, groups]` for groups; a tensor's one scale stands in every row. Greater than 0."""
    zero: npt.NDArray[np.uint8] | None
    """As `scale`, in steps; None for int8, e4m3, and 4 bits without zero points of their own (they count from 8)."""

    def dequantized(self) -> Floats:
        """What the numbers stand for, float32 `[out, in]`."""
        values = self._steps()
        np.multiply(values, self._wide(self.scale), out=values)
        return values

    def _steps(self) -> Floats:
        if self.how.kind == "float":
            import torch

            return torch.from_numpy(self.data).view(torch.float8_e4m3fn).float().numpy()
        steps = self.data.astype(np.float32)
        if self.zero is not None:
            steps -= self._wide(self.zero.astype(np.float32))
        elif self.data.dtype == np.uint8:
            steps -= MIDDLE
        return steps

    def _wide(self, shared: Floats) -> Floats:
        """Of a number for each row or group, what can be multiplied with `data`."""
        if shared.ndim == 1:
            return shared[:, None]
        assert self.how.group is not None
        wide: Floats = np.repeat(shared, self.how.group, axis=1)[:, : self.data.shape[1]]
        return wide
