"""NaN and Inf among the numbers of a file, found in passing while its bytes are hashed.

In every float format but one, exactly the numbers that are not finite have all bits of the exponent set; float8 e4m3fn
has no Inf, and NaN has all bits but the sign. So one mask and one maximum over whole numbers tell.
"""

from collections.abc import Mapping

import numpy as np

MASKS: Mapping[str, np.unsignedinteger] = {
    "float64": np.uint64(0x7FF0_0000_0000_0000),
    "float32": np.uint32(0x7F80_0000),
    "float16": np.uint16(0x7C00),
    "bfloat16": np.uint16(0x7F80),
    "float8_e4m3fn": np.uint8(0x7F),
    "float8_e5m2": np.uint8(0x7C),
}
"""Element type by torch's name → the bits that are all set in what is no number."""


class FiniteCheck:
    """Looks through a tensor's bytes block by block; keeps one block of memory for it."""

    def __init__(self, dtype: str, block_bytes: int) -> None:
        """`block_bytes`: the most that a call will be given, a multiple of the element's size."""
        self._mask = MASKS.get(dtype)
        self._scratch = None if self._mask is None else np.empty(block_bytes // self._mask.itemsize, self._mask.dtype)

    def first_bad(self, block: memoryview) -> int | None:
        """Which number of the block is the first NaN or Inf; None if all are finite, as whole numbers are."""
        if self._mask is None or self._scratch is None or not len(block):
            return None
        numbers = np.frombuffer(block, self._mask.dtype)
        masked = np.bitwise_and(numbers, self._mask, out=self._scratch[: len(numbers)])
        return int((masked == self._mask).argmax()) if masked.max() == self._mask else None
