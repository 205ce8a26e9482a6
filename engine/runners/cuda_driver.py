"""An NVIDIA GPU: the few calls of its driver library that runners need. No package is needed.

Reference: CUDA Driver API (the `_v2` names are the 64-bit forms that its header maps the plain names to).
"""

import ctypes
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import IncompatibleError, MemoryBudgetError

_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_OUT_OF_MEMORY = 2
_MULTIPROCESSORS = 16  # CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_…
_NAME_BYTES = 256
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING
_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: what other threads do meanwhile does not end a capture
_MOST_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_ON_DEVICE = 2  # CU_MEMORYTYPE_DEVICE
_PREFER_SHARED = 1  # CU_FUNC_CACHE_PREFER_SHARED
_SHARED_UNASKED = 48 << 10
"""Bytes of shared memory that a block may have without asking for more."""

# CUresult → what to do about it.
ADVICE: Mapping[int, str] = {
    3: "use the GPU in the process that opens it: it does not survive a fork",
    34: f"the {_LIBRARY} that was found is a stub for compilers; install the NVIDIA driver",
    35: "the NVIDIA driver is too old; update it",
    46: "another process has the GPU for itself, or it is being reset; wait, or end that process",
    100: "the driver sees no NVIDIA GPU; check that it is plugged in and not hidden by CUDA_VISIBLE_DEVICES",
    200: "the engine's kernels are damaged; build it again with `pocketxl build`",
    209: "the engine has no kernels for this GPU; build it again on or for this GPU",
    218: "the driver is too old for the engine's kernels; update it",
    222: "the driver is too old for the engine's kernels; update it",
    700: "the GPU's state is lost; start the program again, and report it if it happens again",
    702: "the system stopped a call that took too long; make a smaller picture, or raise the system's GPU timeout",
    719: "the GPU's state is lost; start the program again, and report it if it happens again",
    802: "the GPU is not ready yet; wait, or start the machine again",
    803: "the driver was updated while the machine ran; start the machine again",
    804: "the driver is too old for this GPU's libraries; update it",
    999: "the driver cannot start; start the machine again, or install the driver again",
}


class _Copy2D(ctypes.Structure):
    """CUDA_MEMCPY2D."""

    _fields_ = (
        ("source_x", ctypes.c_size_t),
        ("source_y", ctypes.c_size_t),
        ("source_kind", ctypes.c_uint),
        ("source_host", ctypes.c_void_p),
        ("source", ctypes.c_uint64),
        ("source_array", ctypes.c_void_p),
        ("source_pitch", ctypes.c_size_t),
        ("x", ctypes.c_size_t),
        ("y", ctypes.c_size_t),
        ("kind", ctypes.c_uint),
        ("host", ctypes.c_void_p),
        ("address", ctypes.c_uint64),
        ("array", ctypes.c_void_p),
        ("pitch", ctypes.c_size_t),
        ("width", ctypes.c_size_t),
        ("height", ctypes.c_size_t),
    )


class CudaDriver:
    """The first GPU's primary context, with one stream.

    Raises `IncompatibleError` where there is no GPU or driver; every call raises it, or `MemoryBudgetError`.
    """

    def __init__(self) -> None:
        self._library = _library()
        self._device = ctypes.c_int()
        self._context = ctypes.c_void_p()
        stream = ctypes.c_void_p()
        self._call("cuInit", 0)
        self._call("cuDeviceGet", ctypes.byref(self._device), 0)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), self._device)
        self.enter()
        # One that waits for no other: else what a library's threads do meanwhile would end the capture of a graph.
        self._call("cuStreamCreate", ctypes.byref(stream), _NON_BLOCKING)
        self._stream = stream

    @property
    def stream(self) -> int:
        """The stream's handle, as TensorRT takes it."""
        return int(self._stream.value or 0)

    def device_name(self) -> str:
        """The GPU's marketing name."""
        text = ctypes.create_string_buffer(_NAME_BYTES)
        self._call("cuDeviceGetName", text, _NAME_BYTES, self._device)
        return text.value.decode(errors="replace")

    def compute_capability(self) -> tuple[int, int]:
        """The GPU's generation: (8, 9) for Ada."""
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(major), _MAJOR, self._device)
        self._call("cuDeviceGetAttribute", ctypes.byref(minor), _MINOR, self._device)
        return major.value, minor.value

    def multiprocessors(self) -> int:
        """How many multiprocessors the GPU has."""
        count = ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(count), _MULTIPROCESSORS, self._device)
        return count.value

    def cuda_version(self) -> tuple[int, int]:
        """The newest CUDA version that the driver serves: (12, 9)."""
        number = ctypes.c_int()
        self._call("cuDriverGetVersion", ctypes.byref(number))
        return number.value // 1000, number.value % 1000 // 10

    def memory(self) -> tuple[int, int]:
        """Bytes of the GPU's memory that are free, and all of them; other programs have their part of it too."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self.enter()
        self._call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    def enter(self) -> None:
        """Make the context current for the calling thread."""
        self._call("cuCtxSetCurrent", self._context)

    def allocate(self, size: int) -> int:
        """The address of `size` new bytes on the GPU, aligned to 256. Raises `MemoryBudgetError`."""
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(size, 1)))
        return int(address.value)

    def free(self, address: int) -> None:
        """Give back what `allocate` gave."""
        self._call("cuMemFree_v2", ctypes.c_uint64(address))

    def pin(self, size: int) -> int:
        """The address of `size` new bytes on the host that the GPU copies from and to without a detour."""
        address = ctypes.c_void_p()
        self._call("cuMemHostAlloc", ctypes.byref(address), ctypes.c_size_t(max(size, 1)), ctypes.c_uint(0))
        return int(address.value or 0)

    def unpin(self, address: int) -> None:
        """Give back what `pin` gave."""
        self._call("cuMemFreeHost", ctypes.c_void_p(address))

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

    def copy(self, address: int, source: int, size: int) -> None:
        """Copy `size` bytes from one address on the GPU to another."""
        to, of = ctypes.c_uint64(address), ctypes.c_uint64(source)
        self._call("cuMemcpyDtoDAsync_v2", to, of, ctypes.c_size_t(size), self._stream)

    def copy_pitched(
        self, address: int, pitch: int, source: int, source_pitch: int, *, width: int, height: int
    ) -> None:
        """Copy `height` pieces of `width` bytes on the GPU; a piece begins `pitch` bytes behind the one before it."""
        copied = _Copy2D(
            source_kind=_ON_DEVICE, source=source, source_pitch=source_pitch,
            kind=_ON_DEVICE, address=address, pitch=pitch, width=width, height=height,
        )  # fmt: skip
        self._call("cuMemcpy2DAsync_v2", ctypes.byref(copied), self._stream)

    def clear_pitched(self, address: int, pitch: int, *, width: int, height: int) -> None:
        """Fill `height` pieces of `width` bytes with zeros; a piece begins `pitch` bytes behind the one before it."""
        to, step, zero = ctypes.c_uint64(address), ctypes.c_size_t(pitch), ctypes.c_uint(0)
        self._call("cuMemsetD2D8Async", to, step, zero, ctypes.c_size_t(width), ctypes.c_size_t(height), self._stream)

    def load_module(self, content: bytes) -> int:
        """A handle of compiled kernels; `content` is a cubin or PTX."""
        module = ctypes.c_void_p()
        image = (ctypes.c_char * (len(content) + 1)).from_buffer_copy(content + b"\0")  # PTX ends with a zero
        self._call("cuModuleLoadData", ctypes.byref(module), image)
        return int(module.value or 0)

    def unload_module(self, module: int) -> None:
        """Give back what `load_module` gave; none of its kernels may run."""
        self._call("cuModuleUnload", ctypes.c_void_p(module))

    def function(self, module: int, entry: str, *, shared: int) -> int:
        """A handle of one kernel whose blocks take `shared` bytes of dynamic shared memory."""
        found = ctypes.c_void_p()
        name = ctypes.create_string_buffer(entry.encode())
        self._call("cuModuleGetFunction", ctypes.byref(found), ctypes.c_void_p(module), name)
        if shared > _SHARED_UNASKED:
            self._call("cuFuncSetCacheConfig", found, _PREFER_SHARED)
            self._call("cuFuncSetAttribute", found, _MOST_SHARED, shared)
        return int(found.value or 0)

    def launch(
        self, function: int, grid: tuple[int, int, int], parameters: Sequence[Any], *, threads: int, shared: int
    ) -> None:
        """Start a kernel behind what is on the stream. `parameters`: ctypes values, which are copied here."""
        places = (ctypes.c_void_p * len(parameters))(*(ctypes.addressof(value) for value in parameters))
        kernel = ctypes.c_void_p(function)
        self._call("cuLaunchKernel", kernel, *grid, threads, 1, 1, shared, self._stream, places, None)

    def capture(self, work: Callable[[], None]) -> int:
        """A graph of what `work` puts on the stream, which does not run; `replay` runs it."""
        graph, made = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuStreamBeginCapture_v2", self._stream, _THREAD_LOCAL)
        try:
            work()
        except BaseException:
            # Ended in any case, or the stream takes nothing any more; what is wrong is known already.
            self._library.cuStreamEndCapture(self._stream, ctypes.byref(graph))
            if graph.value:
                self._library.cuGraphDestroy(graph)
            raise
        self._call("cuStreamEndCapture", self._stream, ctypes.byref(graph))
        try:
            self._call("cuGraphInstantiateWithFlags", ctypes.byref(made), graph, ctypes.c_uint64(0))
            try:
                self._call("cuGraphUpload", made, self._stream)  # or its first launch does that, and takes longer
            except BaseException:
                self._library.cuGraphExecDestroy(made)
                raise
        finally:
            self._call("cuGraphDestroy", graph)
        return int(made.value or 0)

    def replay(self, graph: int) -> None:
        """Start a graph behind what is on the stream."""
        self._call("cuGraphLaunch", ctypes.c_void_p(graph), self._stream)

    def drop_graph(self, graph: int) -> None:
        """Give back what `capture` gave; it may not be running."""
        self._call("cuGraphExecDestroy", ctypes.c_void_p(graph))

    def synchronize(self) -> None:
        """Wait for everything on the stream."""
        self._call("cuStreamSynchronize", self._stream)

    def close(self) -> None:
        """Give the stream and the context back."""
        self._call("cuStreamDestroy_v2", self._stream)
        self._call("cuDevicePrimaryCtxRelease_v2", self._device)

    def _call(self, name: str, *arguments: Any) -> None:
        try:
            function = getattr(self._library, name)
        except AttributeError as error:
            raise IncompatibleError(f"the NVIDIA driver has no {name}, so it is too old; update it") from error
        if status := int(function(*arguments)):
            raise _error(self._library, name, status)


def _library() -> Any:
    try:
        return ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise IncompatibleError(
            f"engines for NVIDIA GPUs need one and its driver, and {_LIBRARY} is not here; install the driver, use "
            "another machine, or build with --target cpu"
        ) from error


def _error(library: Any, name: str, status: int) -> IncompatibleError | MemoryBudgetError:
    if status == _OUT_OF_MEMORY:
        return MemoryBudgetError(
            f"the GPU is out of memory ({name}); close other programs that use it, give a smaller --budget, or make a "
            "smaller picture"
        )
    text = ctypes.c_char_p()
    library.cuGetErrorString(status, ctypes.byref(text))
    reason = os.fsdecode(text.value or b"unknown error")
    advice = ADVICE.get(status, "start the program again, and update the driver if that does not help")
    return IncompatibleError(f"the NVIDIA driver answers {name} with error {status} ({reason}): {advice}")
