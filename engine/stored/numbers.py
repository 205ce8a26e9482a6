"""The bytes of a tensor as float32 numbers, whatever floats they are stored as. Needs numpy alone."""

from functools import cache

import numpy as np
import numpy.typing as npt

from .header import StoredTensor

Floats = npt.NDArray[np.float32]
_PLAIN = {
    "float64": np.dtype("<f8"),
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "int64": np.dtype("<i8"),
    "int32": np.dtype("<i4"),
    "int16": np.dtype("<i2"),
    "int8": np.dtype("i1"),
    "uint8": np.dtype("u1"),
}


def floats(stored: StoredTensor, data: memoryview) -> Floats:
    """The tensor in new memory. `data`: its bytes, as many as `stored.nbytes`. NaN and Inf stay what they are."""
    if stored.dtype in _PLAIN:
        numbers = np.frombuffer(data, _PLAIN[stored.dtype])
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes Inf, which is told apart later
            return numbers.astype(np.float32).reshape(stored.shape)
    if stored.dtype == "bfloat16":
        wide = np.frombuffer(data, "<u2").astype(np.uint32) << 16
        return wide.view(np.float32).reshape(stored.shape)
    if stored.dtype in ("float8_e4m3fn", "float8_e5m2"):
        return _float8(stored.dtype)[np.frombuffer(data, np.uint8)].reshape(stored.shape)
    return np.frombuffer(data, np.uint8).astype(np.float32).reshape(stored.shape)


@cache
def _float8(dtype: str) -> Floats:
    """The 256 numbers of an 8-bit format (OCP's, as torch has them), by their bits."""
    bits = np.arange(256)
    if dtype == "float8_e5m2":  # the upper half of a float16
        return (bits.astype(np.uint16) << 8).view(np.float16).astype(np.float32)
    exponent, mantissa = bits >> 3 & 15, bits & 7
    size = np.where(exponent == 0, mantissa / 8 * 2.0**-6, (1 + mantissa / 8) * 2.0 ** (exponent - 7.0))
    size[bits & 127 == 127] = np.nan
    return np.where(bits >= 128, -size, size).astype(np.float32)
