"""Inputs that stay for many calls, at addresses that stay for many pictures.

A captured graph is good for as long as everything lies where it was. So the memory of what one picture held serves the
next, and its graphs with it.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

import numpy as np

from ..specs import ComponentSpec
from .device import CudaArray, CudaDevice

MOST_SPARE = 2
"""Arrays of a value that are kept between pictures: those for one row, and for two."""


class HeldValues:
    """What is held: the inputs of a `spec` that have these `names`, which were checked and have these `lengths`.

    `missing`: the spec of what a call must give besides. `values`: the program's.
    """

    def __init__(
        self, pool: "HeldPool", spec: ComponentSpec, names: Collection[str], lengths: Mapping[str, int]
    ) -> None:
        self.missing = replace(spec, inputs=tuple(tensor for tensor in spec.inputs if tensor.name not in names))
        self.lengths = dict(lengths)
        self.values: dict[str, CudaArray] = {}
        self._spec = spec
        self._pool = pool
        self._places: Places | None = None

    @property
    def places(self) -> "Places":
        """Where each value lies."""
        if self._places is None:
            self._places = Places((name, array.address) for name, array in self.values.items())
        return self._places

    def add(self, value: str, shape: tuple[int, ...], dtype: np.dtype) -> CudaArray:
        """Memory for a value. Raises `MemoryBudgetError`."""
        self._places = None
        array = self.values[value] = self._pool.take(value, shape, dtype)
        return array

    def release(self) -> None:
        """Let the next picture have the memory; a no-op the second time."""
        self.missing, self.lengths, self._places = self._spec, {}, None
        while self.values:
            self._pool.give(*self.values.popitem())


class Places:
    """Addresses by value, as part of keys. It keeps its hash: there are hundreds, and each call asks for it."""

    def __init__(self, addresses: Iterable[tuple[str, int]]) -> None:
        self.addresses = dict(addresses)
        self.names = frozenset(self.addresses)
        self._hash = hash(frozenset(self.addresses.items()))

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Places) and self.addresses == other.addresses)

    def __hash__(self) -> int:
        return self._hash


NOWHERE = Places(())


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
