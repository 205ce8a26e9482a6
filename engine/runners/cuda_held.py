"""Inputs that stay for many calls, at addresses that stay for many pictures.

A captured graph is good for as long as everything lies where it was. So the memory of what one picture held serves the
next, and its graphs with it.
"""

import numpy as np

from .device import CudaArray, CudaDevice

MOST_SPARE = 2
"""Arrays of a value that are kept between pictures: those for one row, and for two."""


class HeldValues:
    """What is held. `inputs`: each tensor as its caller gave it, for checks only. `values`: the program's."""

    def __init__(self, pool: "HeldPool") -> None:
        self.inputs: dict[str, np.ndarray] = {}
        self.values: dict[str, CudaArray] = {}
        self._pool = pool

    def addresses(self) -> tuple[tuple[str, int], ...]:
        """Where each value lies."""
        return tuple((name, array.address) for name, array in self.values.items())

    def add(self, value: str, shape: tuple[int, ...], dtype: np.dtype) -> CudaArray:
        """Memory for a value. Raises `MemoryBudgetError`."""
        array = self.values[value] = self._pool.take(value, shape, dtype)
        return array

    def release(self) -> None:
        """Let the next picture have the memory; a no-op the second time."""
        self.inputs.clear()
        while self.values:
            self._pool.give(*self.values.popitem())


class HeldPool:
    """Of one component."""

    def __init__(self, device: CudaDevice) -> None:
        self._device = device
        self._spare: dict[str, list[CudaArray]] = {}
        self._closed = False

    def take(self, value: str, shape: tuple[int, ...], dtype: np.dtype) -> CudaArray:
        """Memory for a value: what it has had before, if that is free."""
        for array in (spare := self._spare.setdefault(value, [])):
            if array.shape == shape and array.stored == dtype:
                spare.remove(array)
                return array
        return self._device.empty(shape, dtype)

    def give(self, value: str, array: CudaArray) -> None:
        """Take it back."""
        spare = self._spare.setdefault(value, [])
        spare.append(array)
        for old in spare[: -MOST_SPARE if not self._closed else None]:
            spare.remove(old)
            old.release()

    def release(self) -> None:
        """Free what is spare now, and at once what comes back later."""
        self._closed = True
        for spare in self._spare.values():
            while spare:
                spare.pop().release()
        self._spare.clear()


def shape_only(array: np.ndarray) -> np.ndarray:
    """An array of the same shape and dtype, without the numbers."""
    return np.broadcast_to(np.empty((), array.dtype), array.shape)
