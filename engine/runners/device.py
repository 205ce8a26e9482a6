"""An NVIDIA GPU: the few calls of its driver library that runners need, and arrays in its memory. No package is needed.

Reference: CUDA Driver API (the `_v2` names are the 64-bit forms that its header maps the plain names to).
"""

import ctypes
import os
import sys
from collections.abc import Mapping
from functools import cached_property
from math import prod
from typing import Any, Self

import numpy as np

from ..errors import IncompatibleError, MemoryBudgetError
from .base import Pool, Value

_OUT_OF_MEMORY = 2


class CudaDriver:
    """The first GPU's primary context, with one stream. Raises `IncompatibleError` where there is no GPU or driver."""

    def __init__(self) -> None:
        name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
        try:
            self._library = ctypes.CDLL(name)
        except OSError as error:
            raise IncompatibleError(
                f"this engine needs an NVIDIA GPU and its driver, and {name} is not here; use another machine, "
                "or build with --target cpu"
            ) from error
        self._device = ctypes.c_int()
        self._context = ctypes.c_void_p()
        stream = ctypes.c_void_p()
        self._call("cuInit", 0)
        self._call("cuDeviceGet", ctypes.byref(self._device), 0)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), self._device)
        self.enter()
        self._call("cuStreamCreate", ctypes.byref(stream), 0)
        self._stream = stream

    @property
    def stream(self) -> int:
        """The stream's handle, as TensorRT takes it."""
        return int(self._stream.value or 0)

    def device_name(self) -> str:
        """The GPU's marketing name."""
        text = ctypes.create_string_buffer(256)
        self._call("cuDeviceGetName", text, 256, self._device)
        return text.value.decode(errors="replace")

    def enter(self) -> None:
        """Make the context current for the calling thread."""
        self._call("cuCtxSetCurrent", self._context)

    def allocate(self, size: int) -> int:
        """The address of `size` new bytes on the GPU. Raises `MemoryBudgetError`."""
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(size, 1)))
        return int(address.value)

    def free(self, address: int) -> None:
        """Give back what `allocate` gave."""
        self._call("cuMemFree_v2", ctypes.c_uint64(address))

    def upload(self, address: int, array: np.ndarray) -> None:
        """Copy a contiguous array to the GPU; `array` must stay alive until `synchronize`."""
        host = ctypes.c_void_p(array.ctypes.data)
        size = ctypes.c_size_t(array.nbytes)
        self._call("cuMemcpyHtoDAsync_v2", ctypes.c_uint64(address), host, size, self._stream)

    def download(self, array: np.ndarray, address: int) -> None:
        """Copy from the GPU into a contiguous array, which is filled after `synchronize`."""
        host = ctypes.c_void_p(array.ctypes.data)
        size = ctypes.c_size_t(array.nbytes)
        self._call("cuMemcpyDtoHAsync_v2", host, ctypes.c_uint64(address), size, self._stream)

    def synchronize(self) -> None:
        """Wait for everything on the stream."""
        self._call("cuStreamSynchronize", self._stream)

    def close(self) -> None:
        """Give the stream and the context back."""
        self._call("cuStreamDestroy_v2", self._stream)
        self._call("cuDevicePrimaryCtxRelease_v2", self._device)

    def _call(self, name: str, *arguments: Any) -> None:
        status = int(getattr(self._library, name)(*arguments))
        if status == 0:
            return
        text = ctypes.c_char_p()
        self._library.cuGetErrorString(status, ctypes.byref(text))
        reason = os.fsdecode(text.value or b"unknown error")
        if status == _OUT_OF_MEMORY:
            raise MemoryBudgetError(f"the GPU is out of memory ({name}); make a smaller picture or free some of it")
        raise IncompatibleError(f"the NVIDIA driver answers {name} with error {status} ({reason}); no GPU can be used")


class CudaArray:
    """An array in the GPU's memory: `address`, `shape`, how it is `stored`, and the `dtype` that the host gets."""

    def __init__(
        self,
        device: "CudaDevice",
        address: int,
        capacity: int,
        shape: tuple[int, ...],
        stored: np.dtype,
        dtype: np.dtype | None = None,
    ) -> None:
        self.address = address
        self.capacity = capacity
        """Bytes that its memory has room for."""
        self.shape = shape
        self.stored = stored
        self.dtype = stored if dtype is None else dtype
        self._device = device

    def shaped(self, shape: tuple[int, ...]) -> Self:
        """The same memory under another shape."""
        return type(self)(self._device, self.address, self.capacity, shape, self.stored, self.dtype)

    def declared(self, dtype: np.dtype) -> Self:
        """The same memory, whose numbers the host gets as `dtype`."""
        return type(self)(self._device, self.address, self.capacity, self.shape, self.stored, dtype)

    def release(self) -> None:
        """Free its memory; a no-op the second time."""
        if self.address:
            self._device.driver.free(self.address)
            self.address = 0

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        """Fetch it."""
        host = np.empty(self.shape, self.stored)
        self._device.driver.enter()
        self._device.driver.download(host, self.address)
        self._device.driver.synchronize()
        return host.astype(self.dtype if dtype is None else dtype, copy=False)


class CudaDevice:
    """The GPU that an engine's runners share; its driver is opened when the first of them needs it."""

    overhead: Mapping[Pool, int] = {"host": 150 << 20, "device": 300 << 20}
    """The process as on a processor; for the driver's context an allowance, not yet a measurement."""
    concurrent = False

    def __init__(self, *, threads: int | None = None) -> None:
        """`threads` is for processors and means nothing here."""

    @cached_property
    def driver(self) -> CudaDriver:
        """The driver. Raises `IncompatibleError` where there is none, or no GPU."""
        return CudaDriver()

    @property
    def name(self) -> str:
        """The GPU's name; empty on a machine without one."""
        try:
            return self.driver.device_name()
        except IncompatibleError:
            return ""

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> CudaArray:
        """Memory for an array. Raises `MemoryBudgetError`."""
        size = prod(shape) * dtype.itemsize
        return CudaArray(self, self.driver.allocate(size), size, shape, dtype)

    def array(self, value: Value, dtype: np.dtype) -> CudaArray:
        """`value` on the GPU as `dtype`, in memory of its own; a device array of that type hands its memory over."""
        if isinstance(value, CudaArray) and value.stored == dtype:
            return value
        host = np.ascontiguousarray(value, dtype=dtype)
        made = self.empty(host.shape, dtype).declared(np.asarray(value).dtype)
        self.upload(made, host)
        return made

    def upload(self, array: CudaArray, host: np.ndarray) -> None:
        """Copy a contiguous array of the stored type, and wait for it."""
        self.driver.enter()
        self.driver.upload(array.address, host)
        self.driver.synchronize()

    def close(self) -> None:
        """Give stream and context back."""
        if "driver" in self.__dict__:
            self.driver.close()
            del self.__dict__["driver"]
