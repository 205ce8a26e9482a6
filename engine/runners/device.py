"""The GPU that an engine's runners share: arrays in its memory, one scratch for all of them, copies from and to it."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from math import prod
from typing import Self
from weakref import WeakSet

import numpy as np

from ..errors import IncompatibleError, PocketXLError
from .base import Pool, Value
from .cuda_driver import CudaDriver


class Block:
    """Memory on the GPU. It goes back when it is released, or when nobody has it any more: after an error, say."""

    def __init__(self, driver: CudaDriver, size: int) -> None:
        driver.enter()
        self.address = driver.allocate(size)
        self.size = size
        self._driver = driver

    def release(self) -> None:
        """Free it; a no-op the second time."""
        address, self.address = self.address, 0
        if address:
            self._driver.enter()
            self._driver.free(address)

    def __del__(self) -> None:
        if getattr(self, "address", 0):  # none where there was no room for it
            with suppress(PocketXLError):  # in a forked process it is not ours
                self.release()


class CudaArray:
    """An array in the GPU's memory: `shape`, how it is `stored`, and the `dtype` that the host gets."""

    def __init__(
        self,
        device: "CudaDevice",
        block: Block,
        shape: tuple[int, ...],
        stored: np.dtype,
        dtype: np.dtype | None = None,
    ) -> None:
        self.shape = shape
        self.stored = stored
        self.dtype = stored if dtype is None else dtype
        self._block = block
        self._device = device

    @property
    def address(self) -> int:
        """Where it lies; 0 once it is released."""
        return self._block.address

    @property
    def capacity(self) -> int:
        """Bytes that its memory has room for."""
        return self._block.size

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers."""
        return prod(self.shape) * self.stored.itemsize

    def shaped(self, shape: tuple[int, ...]) -> Self:
        """The same memory under another shape."""
        return type(self)(self._device, self._block, shape, self.stored, self.dtype)

    def declared(self, dtype: np.dtype) -> Self:
        """The same memory, whose numbers the host gets as `dtype`."""
        return type(self)(self._device, self._block, self.shape, self.stored, dtype)

    def release(self) -> None:
        """Free its memory; a no-op the second time."""
        self._block.release()

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        """Fetch it."""
        host = np.empty(self.shape, self.stored)
        self._device.driver.enter()
        self._device.driver.download(host, self.address)
        self._device.driver.synchronize()
        return host.astype(self.dtype if dtype is None else dtype, copy=False)


class CudaDevice:
    """The first GPU; its driver is opened when the first runner needs it."""

    overhead: Mapping[Pool, int] = {"host": 150 << 20, "device": 300 << 20}
    """The process as on a processor; for the driver's context an allowance, not yet a measurement."""
    concurrent = False

    def __init__(self, *, threads: int | None = None) -> None:
        """`threads` is for processors and means nothing here."""
        self.closing: list[Callable[[], None]] = []
        """Called before the context goes: whoever has something of a library's on the GPU lets go of it."""
        self._scratch: Block | None = None
        self._blocks: WeakSet[Block] = WeakSet()
        self._process = 0
        self._unfinished = False

    @cached_property
    def driver(self) -> CudaDriver:
        """The driver. Raises `IncompatibleError` where there is none, or no GPU."""
        driver = CudaDriver()
        self._process = os.getpid()
        return driver

    @property
    def name(self) -> str:
        """The GPU's name; empty on a machine without one."""
        try:
            return self.driver.device_name()
        except IncompatibleError:
            return ""

    @property
    def architecture(self) -> str:
        """The GPU's generation, as engines name those that they are for (`sm89`); empty on a machine without one."""
        try:
            major, minor = self.driver.compute_capability()
        except IncompatibleError:
            return ""
        return f"sm{major}{minor}"

    @cached_property
    def room(self) -> int | None:
        """Bytes that were free before this process took any; None on a machine without a GPU."""
        try:
            return self.driver.memory()[0] + self.overhead["device"]
        except IncompatibleError:
            return None

    @property
    def in_use(self) -> int | None:
        """Bytes of the GPU's memory that are taken, by whomever; None on a machine without one."""
        try:
            free, total = self.driver.memory()
        except IncompatibleError:
            return None
        return total - free

    @property
    def forked(self) -> bool:
        """Whether the GPU was opened by a process that this one was forked from: then nothing of it works here."""
        return "driver" in self.__dict__ and self._process not in (0, os.getpid())

    @contextmanager
    def work(self) -> Iterator[None]:
        """What is put on the stream within has happened afterwards.

        After an exception it may still be under way; then the next work begins by waiting for it.
        """
        if self._unfinished:
            self.driver.synchronize()
        self._unfinished = True
        yield
        self.driver.synchronize()
        self._unfinished = False

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> CudaArray:
        """Memory for an array. Raises `MemoryBudgetError`."""
        return CudaArray(self, self._allocate(prod(shape) * dtype.itemsize), shape, dtype)

    def array(self, value: Value, dtype: np.dtype) -> CudaArray:
        """`value` on the GPU as `dtype`, in memory of its own; a device array of that type hands its memory over."""
        if isinstance(value, CudaArray) and value.stored == dtype:
            return value
        host = np.ascontiguousarray(value, dtype=dtype)
        made = self.empty(host.shape, dtype).declared(value.dtype)
        self.driver.upload(made.address, host)
        self.driver.synchronize()
        return made

    def scratch(self, size: int) -> tuple[int, int]:
        """Address and size of memory that any runner may use during its call: at least `size` bytes.

        One for all, because calls run one after another. It grows by moving, so ask again before every call.
        """
        if self._scratch is None or size > self._scratch.size:
            self.drop_scratch()  # first: both at once would be more than was planned
            self._scratch = self._allocate(size)
        return self._scratch.address, self._scratch.size

    def drop_scratch(self) -> None:
        """Give the scratch back; the next call takes what it needs. Nothing may be running."""
        scratch, self._scratch = self._scratch, None
        if scratch is not None:
            scratch.release()

    def close(self) -> None:
        """Give stream and context back."""
        if "driver" not in self.__dict__:
            return
        self.driver.enter()
        for close in self.closing:
            close()
        self.drop_scratch()
        for block in list(self._blocks):  # what an error has left behind
            block.release()
        self.driver.close()
        del self.__dict__["driver"]
        self._unfinished = False
        self.__dict__.pop("room", None)

    def _allocate(self, size: int) -> Block:
        block = Block(self.driver, size)
        self._blocks.add(block)
        return block
