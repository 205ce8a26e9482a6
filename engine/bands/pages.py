"""Memory for bands: pages of their own, which go back to the system at once, or to the next band that wants as many.

The heap would be left in pieces. New pages cost a fault each, which for a whole picture came to a fifth of the time.
"""

import math
import mmap
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

FREE_BYTES = 16 << 20
"""What may wait for its next use at most."""
WASTE = 1.25
"""How much larger than asked for what waits may be."""
# Nobody shares them, and a fault costs less than for pages that somebody might; Windows knows no such choice.
_OPTIONS: dict[str, Any] = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}


class Pages:
    """Arrays out of whole pages. What is given back is taken again, or dropped."""

    def __init__(self) -> None:
        self._waiting: list[np.ndarray] = []
        self._ours: WeakValueDictionary[int, np.ndarray] = WeakValueDictionary()

    def take(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """An array of that shape, full of anything."""
        kind = np.dtype(dtype)
        size = max(1, math.prod(shape) * kind.itemsize)
        found = next((i for i, x in enumerate(self._waiting) if size <= x.nbytes <= WASTE * size), None)
        whole = self._new(size) if found is None else self._waiting.pop(found)
        return whole[: math.prod(shape) * kind.itemsize].view(kind).reshape(shape)

    def give(self, array: np.ndarray) -> None:
        """Take back an array that nobody reads any more; one that is not from here is left alone."""
        whole: Any = array.base
        if self._ours.get(id(whole)) is not whole or whole is None:
            return
        self._waiting.append(whole)
        while sum(x.nbytes for x in self._waiting) > FREE_BYTES:
            self._waiting.pop(0)

    def _new(self, size: int) -> np.ndarray:
        memory: Any = mmap.mmap(-1, size, **_OPTIONS)
        whole = np.frombuffer(memory, np.uint8, size)
        self._ours[id(whole)] = whole
        return whole
