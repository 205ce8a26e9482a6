"""One engine of TensorRT for RTX: it loses its weights between phases and keeps the rest, and compiles on the card.

How it is opened follows the library's guide (1.7.1): kernels are specialised to the shapes of a call before it runs
(with general ones serving meanwhile, the first picture of a size might differ from the next in its last bits), the
whole call is captured in a CUDA graph from the second time on, and what was compiled is kept.
"""

import mmap
from pathlib import Path
from typing import Any, ClassVar

from ..errors import IncompatibleError, MemoryBudgetError
from .device import CudaDevice
from .kernel_cache import KernelCache
from .tensorrt_engine import TensorRTEngine
from .tensorrt_library import RTX, TensorRTLibrary
from .tensorrt_refusal import refusal


class RtxEngine(TensorRTEngine):
    """See `TensorRTEngine`."""

    library: ClassVar[TensorRTLibrary] = RTX

    def __init__(self, trt: Any, path: Path, device: CudaDevice, *, size: int, digest: str) -> None:
        """See `TensorRTEngine`."""
        # The config does not keep the cache alive, nor the context the config: a lost one ends the process.
        self._cache: Any = None
        self._deferred = False
        super().__init__(trt, path, device, size=size, digest=digest)
        driver = device.driver
        facts = (driver.device_name(), driver.compute_capability(), driver.cuda_version(), trt.__version__, digest)
        self._kernels = KernelCache(path, repr(facts))

    def unload(self) -> None:
        """Take the weights off the GPU, and keep what was compiled. No call may be running."""
        try:
            self._keep_kernels()
        finally:
            if not self.engine.unload_weights():
                self.close()

    def close(self) -> None:
        """See `TensorRTEngine`."""
        super().close()
        self._cache = None

    def _loaded(self, content: mmap.mmap) -> bool:
        """See `TensorRTEngine`.

        The engine without its weights stays between two loads where the library can do that: it cannot for one that
        was built for streaming, which is opened whole.
        """
        if self.context is not None and self.engine.load_weights(content):
            return True
        for deferred in (True, False):
            self._deferred = deferred
            if self._opened(content):
                self._keep_kernels()  # many programs end without closing anything
                return True
        return False

    def _open(self, content: mmap.mmap) -> bool:
        self._runtime.defer_weights_loading = self._deferred
        return super()._open(content) and (not self._deferred or bool(self.engine.load_weights(content)))

    def _configure(self, config: Any) -> None:
        trt = self._trt
        if not self._deferred:
            self._stream_what_does_not_fit()
        super()._configure(config)
        config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        self._cache = config.create_runtime_cache()
        if (kernels := self._kernels.read()) is not None:
            self._cache.deserialize(kernels)  # False for what it does not take; it then compiles anew
        config.set_runtime_cache(self._cache)

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

    def _refusal(self, content: mmap.mmap) -> IncompatibleError | MemoryBudgetError:
        header = content[: int(self._runtime.engine_header_size)]
        return refusal(self._trt, self._runtime, self.log, header, self._path, self._device, self._size)
