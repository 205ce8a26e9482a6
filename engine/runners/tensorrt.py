"""A component on TensorRT for RTX.

Written to the documented API and not yet run on a GPU; its test is marked `gpu`.
"""

import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import IncompatibleError, MemoryBudgetError, RequestError
from ..folder.manifest import ComponentEntry, checked_path
from .base import Arrays, check_inputs
from .device import CudaDriver

ENGINE_FILE = "model.engine"


@dataclass(kw_only=True)
class _Loaded:
    """What lives on the GPU between `load` and `release`."""

    driver: CudaDriver
    engine: Any
    context: Any
    dtypes: dict[str, np.dtype]
    buffers: dict[str, tuple[int, int]]
    """Tensor → address and capacity in bytes; a buffer grows and is kept."""


class TensorRTRunner:
    """Runs `<component>/model.engine` of an engine folder on the first GPU.

    `threads` is taken for the sake of the other runners and has no meaning here. `weight_budget` is the most bytes of
    weights that stay on the GPU, the rest being streamed from host memory at every call (None: all stay).
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        entry: ComponentEntry,
        *,
        threads: int | None = None,
        weight_budget: int | None = None,
    ) -> None:
        self.name = name
        self.spec = entry.spec
        self.weight_bytes = entry.weight_bytes
        self._folder = folder
        self._entry = entry
        self._weight_budget = weight_budget
        self._loaded: _Loaded | None = None

    @property
    def loaded(self) -> bool:
        """True between `load` and `release`."""
        return self._loaded is not None

    def load(self) -> None:
        """Check the hash, then open the engine. Raises `IntegrityError`, `IncompatibleError` or `MemoryBudgetError`."""
        if self._loaded is None:
            self._loaded = self._load()

    def release(self) -> None:
        """Give the GPU's memory back."""
        if self._loaded is None:
            return
        loaded, self._loaded = self._loaded, None
        loaded.driver.enter()
        for address, _ in loaded.buffers.values():
            loaded.driver.free(address)
        # TensorRT frees its memory when its objects go, in this order, while the context is still there.
        loaded.context = None
        loaded.engine = None
        loaded.driver.close()

    def __call__(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Run once; see `Runner`. A size outside the engine's profile is a `RequestError` that names the range."""
        check_inputs(self.name, self.spec, inputs)
        self.load()
        assert self._loaded is not None
        driver, context, dtypes = self._loaded.driver, self._loaded.context, self._loaded.dtypes
        driver.enter()
        feeds = {n: np.ascontiguousarray(array, dtype=dtypes[n]) for n, array in inputs.items()}
        for name, array in feeds.items():
            if not context.set_input_shape(name, array.shape):
                least, _, most = (tuple(s) for s in self._loaded.engine.get_tensor_profile_shape(name, 0))
                raise RequestError(
                    f"{self.name}: {name} has shape {array.shape}, this engine takes {least} to {most}; choose another "
                    "size or batch"
                )
            driver.upload(self._buffer(name, array.nbytes), array)
        if missing := context.infer_shapes():
            raise IncompatibleError(f"{self.name}: the engine also needs {missing}; build it again")
        results = {}
        for tensor in self.spec.outputs:
            results[tensor.name] = np.empty(tuple(context.get_tensor_shape(tensor.name)), dtypes[tensor.name])
            self._buffer(tensor.name, results[tensor.name].nbytes)
        if not context.execute_async_v3(driver.stream):
            raise IncompatibleError(f"{self.name}: TensorRT for RTX could not run the engine; update the NVIDIA driver")
        for name, result in results.items():
            driver.download(result, self._loaded.buffers[name][0])
        driver.synchronize()
        return {t.name: results[t.name].astype(t.dtype, copy=False) for t in self.spec.outputs}

    def _load(self) -> _Loaded:
        paths = [checked_path(self._folder, file) for file in self._entry.files]
        path = next(path for path in paths if path.name == ENGINE_FILE)
        trt = import_tensorrt()
        driver = CudaDriver()
        try:
            return self._open(trt, driver, path)
        except BaseException:
            driver.close()
            raise

    def _open(self, trt: Any, driver: CudaDriver, path: Path) -> _Loaded:
        runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            engine = runtime.deserialize_cuda_engine(content)
        if engine is None:
            raise IncompatibleError(
                f"{self.name}: TensorRT for RTX {trt.__version__} cannot open {path} on this GPU; build the engine for "
                "this GPU's generation with the installed version"
            )
        streamable = int(engine.streamable_weights_size)
        budget = streamable if self._weight_budget is None else min(self._weight_budget, streamable)
        engine.weight_streaming_budget_v2 = budget  # before any context is made
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        context = engine.create_execution_context()
        if context is None:
            raise MemoryBudgetError(
                f"{self.name}: the GPU has no room for the engine; set a weight budget or free memory"
            )
        dtypes = {name: np.dtype(trt.nptype(engine.get_tensor_dtype(name))) for name in names}
        return _Loaded(driver=driver, engine=engine, context=context, dtypes=dtypes, buffers={})

    def _buffer(self, name: str, size: int) -> int:
        """The address of the tensor's buffer, which has room for `size` bytes and is known to TensorRT."""
        assert self._loaded is not None
        address, capacity = self._loaded.buffers.get(name, (0, -1))
        if capacity < size:
            if address:
                self._loaded.driver.free(address)
                del self._loaded.buffers[name]
            address = self._loaded.driver.allocate(size)
            self._loaded.buffers[name] = (address, size)
        self._loaded.context.set_tensor_address(name, address)
        return address


def import_tensorrt() -> Any:
    """The `tensorrt_rtx` package, or an `IncompatibleError` that says how to install it."""
    try:
        import tensorrt_rtx
    except (ImportError, OSError) as error:
        raise IncompatibleError(
            f"engines for TensorRT for RTX need it, and it is not here ({error}); install it with: "
            "pip install 'pocketxl[rtx]'"
        ) from error
    return tensorrt_rtx
