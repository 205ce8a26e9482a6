"""One engine of TensorRT for RTX: opened once, its weights brought to the GPU and taken away as the plan asks.

How it is opened follows the library's guide (1.7.1): activation memory is given by us for the shapes that run, kernels
are specialised to the shapes of a call before it runs (with general ones serving meanwhile, the first picture of a size
might differ from the next in its last bits), the whole call is captured in a CUDA graph from the second time on, and
what was compiled is kept.
"""

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import IncompatibleError
from .device import CudaDevice
from .kernel_cache import KernelCache
from .tensorrt_library import error_log
from .tensorrt_refusal import refusal


class TensorRTEngine:
    """`engine` and `context` of one file; `size` are its weights' bytes, `digest` tells it from others."""

    def __init__(self, trt: Any, path: Path, device: CudaDevice, *, size: int, digest: str) -> None:
        """Raises `IncompatibleError` where the library has no runtime to offer."""
        self.engine: Any = None
        self.context: Any = None
        self.log = error_log(trt)
        self._trt = trt
        self._path = path
        self._device = device
        self._size = size
        # The config does not keep the cache alive, nor the context the config: a lost one ends the process.
        self._config: Any = None
        self._cache: Any = None
        try:
            self._runtime = trt.Runtime(self.log)
        except (RuntimeError, TypeError) as error:
            raise IncompatibleError(
                f"TensorRT for RTX {trt.__version__} cannot start ({self.log.summary()}); update the NVIDIA driver"
            ) from error
        driver = device.driver
        facts = (driver.device_name(), driver.compute_capability(), driver.cuda_version(), trt.__version__, digest)
        self._kernels = KernelCache(path, repr(facts))

    @property
    def dtypes(self) -> dict[str, np.dtype]:
        """What the engine reads and writes, tensor by tensor."""
        names = [self.engine.get_tensor_name(i) for i in range(self.engine.num_io_tensors)]
        return {name: np.dtype(self._trt.nptype(self.engine.get_tensor_dtype(name))) for name in names}

    def load(self) -> None:
        """Bring the weights to the GPU. Raises `IncompatibleError` or `MemoryBudgetError`.

        The engine without its weights stays between two loads where the library can do that: it cannot for one that
        was built for streaming, which is opened whole.
        """
        self.log.forget()
        with _mapped(self._path) as content:
            if self.context is not None and self.engine.load_weights(content):
                return
            for deferred in (True, False):
                self.close()
                try:
                    opened = self._open(content, deferred=deferred)
                except RuntimeError:  # how the bindings say that a setting was not taken; the log has the reason
                    opened = False
                if opened:
                    self._keep_kernels()  # many programs end without closing anything
                    return
            self.close()
            header = content[: int(self._runtime.engine_header_size)]
        raise refusal(self._trt, self._runtime, self.log, header, self._path, self._device, self._size)

    def unload(self) -> None:
        """Take the weights off the GPU, and keep what was compiled. No call may be running."""
        try:
            self._keep_kernels()
        finally:
            if not self.engine.unload_weights():
                self.close()

    def close(self) -> None:
        """Let go of everything; the order matters to the library."""
        self.context = None
        self.engine = None
        self._config = None
        self._cache = None

    def _open(self, content: mmap.mmap, *, deferred: bool) -> bool:
        trt = self._trt
        self._runtime.defer_weights_loading = deferred
        self.engine = self._runtime.deserialize_cuda_engine(content)
        if self.engine is None:
            return False
        if not deferred:
            self._stream_what_does_not_fit()
        self._config = config = self.engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        self._cache = config.create_runtime_cache()
        if (kernels := self._kernels.read()) is not None:
            self._cache.deserialize(kernels)  # False for what it does not take; it then compiles anew
        config.set_runtime_cache(self._cache)
        self.context = self.engine.create_execution_context(config)
        return self.context is not None and (not deferred or bool(self.engine.load_weights(content)))

    def _keep_kernels(self) -> None:
        kernels = self._cache.serialize()
        if kernels is not None:
            self._kernels.write(bytes(kernels))

    def _stream_what_does_not_fit(self) -> None:
        """Keep all weights of a streamable engine on the GPU, or as many as the library sees room for."""
        whole = int(self.engine.streamable_weights_size)
        if not whole:
            return
        free, _ = self._device.driver.memory()
        fits = whole + int(self.engine.device_memory_size_v2) <= free
        budget = whole if fits else min(whole, int(self.engine.get_weight_streaming_automatic_budget()))
        self.engine.weight_streaming_budget_v2 = budget  # before any context is made


@contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap]:
    """A file's content, read as it is asked for."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content
