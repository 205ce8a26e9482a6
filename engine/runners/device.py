"""The few calls of NVIDIA's driver library that a runner needs: memory, copies and one stream. No package is needed.

Reference: CUDA Driver API (the `_v2` names are the 64-bit forms that its header maps the plain names to).
"""

import ctypes
import os
import sys
from typing import Any

import numpy as np

from ..errors import IncompatibleError, MemoryBudgetError

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
