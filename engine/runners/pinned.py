"""Host memory that a GPU copies from and to directly.

A copy from ordinary memory goes through a buffer of the driver's and holds the calling thread up. What crosses at every
step is converted straight into such memory: one pass over the numbers, and no copy besides.
"""

import ctypes
from typing import Protocol

import numpy as np


class PinningDriver(Protocol):
    """As much of the driver as is needed for this."""

    def pin(self, size: int) -> int:
        """The address of new memory."""

    def unpin(self, address: int) -> None:
        """Give it back."""


class Pinned:
    """`capacity` bytes of it."""

    def __init__(self, driver: PinningDriver, capacity: int) -> None:
        self.capacity = max(capacity, 1)
        self._driver = driver
        self._address = driver.pin(self.capacity)

    def array(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """The memory as an array, with whatever it holds; good until `release`."""
        block = (ctypes.c_char * self.capacity).from_address(self._address)
        return np.ndarray(shape, dtype, buffer=memoryview(block))

    def filled(self, values: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """`values` as `dtype` in this memory."""
        array = self.array(values.shape, dtype)
        np.copyto(array, values, casting="same_kind")
        return array

    def release(self) -> None:
        """Give it back; a no-op the second time. No copy from or to it may be under way."""
        if self._address:
            self._driver.unpin(self._address)
            self._address = 0
