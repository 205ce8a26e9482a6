"""One engine of TensorRT: opened once, its weights brought to the GPU and taken away as the plan asks.

Activation memory is given by us for the shapes that run. That is all that TensorRT and TensorRT for RTX have in common
here; what the second adds is in `tensorrt_rtx_engine`.
"""

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..errors import IncompatibleError, MemoryBudgetError
from .device import CudaDevice
from .tensorrt_library import FULL, TensorRTLibrary, driver_too_old, error_log
from .tensorrt_refusal import told_refusal


class TensorRTEngine:
    """`engine` and `context` of one file; `size` are its weights' bytes, `digest` tells it from others.

    TensorRT has no way to take weights off the GPU and keep the rest, so an engine is opened and closed whole. Calls go
    to the stream as they are: a CUDA graph would have to be captured anew for every size and address, and the starting
    of kernels, which it saves, is done while the GPU computes.
    """

    library: ClassVar[TensorRTLibrary] = FULL

    def __init__(self, trt: Any, path: Path, device: CudaDevice, *, size: int, digest: str) -> None:
        """Raises `IncompatibleError` where the library has no runtime to offer."""
        self.engine: Any = None
        self.context: Any = None
        self.log = error_log(trt)
        self._trt = trt
        self._path = path
        self._device = device
        self._size = size
        self._digest = digest
        self._config: Any = None  # the context does not keep it alive
        if problem := driver_too_old(self.library, device.driver.cuda_version()):
            raise IncompatibleError(problem)
        try:
            self._runtime = trt.Runtime(self.log)
        except (RuntimeError, TypeError) as error:
            raise IncompatibleError(
                f"{self.library.name} {trt.__version__} cannot start ({self.log.summary()}); update the NVIDIA driver"
            ) from error

    @property
    def dtypes(self) -> dict[str, np.dtype]:
        """What the engine reads and writes, tensor by tensor."""
        names = [self.engine.get_tensor_name(i) for i in range(self.engine.num_io_tensors)]
        return {name: np.dtype(self._trt.nptype(self.engine.get_tensor_dtype(name))) for name in names}

    def load(self) -> None:
        """Bring the weights to the GPU. Raises `IncompatibleError` or `MemoryBudgetError`."""
        self.log.forget()
        with _mapped(self._path) as content:
            if self._loaded(content):
                return
            self.close()
            refused = self._refusal(content)
        raise refused

    def unload(self) -> None:
        """Take the weights off the GPU. No call may be running."""
        self.close()

    def close(self) -> None:
        """Let go of everything; the order matters to the library."""
        self.context = None
        self.engine = None
        self._config = None

    def _loaded(self, content: mmap.mmap) -> bool:
        """Whether the weights are there now."""
        return self._opened(content)

    def _opened(self, content: mmap.mmap) -> bool:
        self.close()
        try:
            return self._open(content)
        except RuntimeError:  # how the bindings say that a setting was not taken; the log has the reason
            return False

    def _open(self, content: mmap.mmap) -> bool:
        self.engine = self._runtime.deserialize_cuda_engine(content)
        if self.engine is None:
            return False
        self._config = self.engine.create_runtime_config()
        self._configure(self._config)
        self.context = self.engine.create_execution_context(self._config)
        return self.context is not None

    def _configure(self, config: Any) -> None:
        strategies = self._trt.ExecutionContextAllocationStrategy
        config.set_execution_context_allocation_strategy(strategies.USER_MANAGED)

    def _refusal(self, content: mmap.mmap) -> IncompatibleError | MemoryBudgetError:
        return told_refusal(self.library, self._trt.__version__, self.log, self._path, self._device, self._size)


@contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap]:
    """A file's content, read as it is asked for."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content
