"""Components on TensorRT for RTX.

Written to the documented API and not yet run on a GPU; its test is marked `gpu`.
"""

import mmap
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import IncompatibleError, MemoryBudgetError, RequestError
from ..folder.manifest import ComponentEntry, checked_file
from ..install import install_advice
from .base import Footprint, Held, Sizes, Value, Values, check_inputs
from .device import CudaArray, CudaDevice

__all__ = ["ENGINE_FILE", "CudaDevice", "TensorRTRunner"]

ENGINE_FILE = "model.engine"


@dataclass(kw_only=True)
class _Loaded:
    """What lives on the GPU between `load` and `release`."""

    engine: Any
    context: Any
    dtypes: dict[str, np.dtype]
    buffers: dict[str, CudaArray]
    """Tensor → its buffer; it grows and is kept."""


class CudaHeld:
    """Inputs in the GPU's memory, in the types that the engine takes."""

    def __init__(self, arrays: Mapping[str, CudaArray]) -> None:
        self.arrays = dict(arrays)

    def release(self) -> None:
        """Free them."""
        for array in self.arrays.values():
            array.release()
        self.arrays.clear()


class TensorRTRunner:
    """Runs `<component>/model.engine` of an engine folder on the first GPU.

    Both sides of guidance go into one call of two rows. All weights stay on the GPU.
    """

    rows = 2

    def __init__(self, folder: Path, name: str, entry: ComponentEntry, device: CudaDevice) -> None:
        self.name = name
        self.spec = entry.spec
        self.device = device
        self._folder = folder
        self._entry = entry
        self._loaded: _Loaded | None = None

    @property
    def loaded(self) -> bool:
        """True between `load` and `release`."""
        return self._loaded is not None

    def footprint(self, sizes: Sizes) -> Footprint:
        """See `Runner`. From the graph's own sizes: what the engine's program asks for is not read yet."""
        working = self._entry.activation.bytes_at(
            sizes.pixels, batch=sizes.rows, tokens=sizes.tokens, steps=sizes.steps
        )
        return Footprint(pool="device", weights=self._entry.weight_bytes, working=working, retained=working)

    def load(self) -> None:
        """Check the hash, then open the engine. Raises `IntegrityError`, `IncompatibleError` or `MemoryBudgetError`."""
        if self._loaded is None:
            self._loaded = self._load()

    def release(self) -> None:
        """Give the GPU's memory back."""
        if self._loaded is None:
            return
        loaded, self._loaded = self._loaded, None
        for buffer in loaded.buffers.values():
            buffer.release()
        # TensorRT frees its memory when its objects go, in this order, while the device is still open.
        loaded.context = None
        loaded.engine = None

    def leave_behind(self) -> None:
        """Refuse: a GPU's driver does not survive a fork. Raises `IncompatibleError`."""
        raise IncompatibleError(
            f"{self.name} was loaded before this process was forked, and a GPU cannot be used across a fork; "
            "load the pipeline in the child, or fork before the first picture"
        )

    def hold(self, inputs: Values) -> Held:
        """Copy them to the GPU in the engine's types; what is there already in its type is taken as it is."""
        dtypes = self._opened().dtypes
        held = {name: self.device.array(value, dtypes[name]) for name, value in inputs.items()}
        self.device.driver.synchronize()
        return CudaHeld(held)

    def __call__(self, inputs: Values, held: Held | None = None, *, keep: Collection[str] = ()) -> dict[str, Value]:
        """Run once; see `Runner`. A size outside the engine's profile is a `RequestError` that names the range."""
        loaded, driver = self._opened(), self.device.driver
        constant = held.arrays if isinstance(held, CudaHeld) else {}
        check_inputs(self.name, self.spec, {**inputs, **constant})
        driver.enter()
        feeds = {n: self._fill(n, value, loaded) for n, value in inputs.items()} | constant
        for name, array in feeds.items():
            if not loaded.context.set_input_shape(name, array.shape):
                least, _, most = (tuple(s) for s in loaded.engine.get_tensor_profile_shape(name, 0))
                raise RequestError(
                    f"{self.name}: {name} has shape {array.shape}, this engine takes {least} to {most}; choose another "
                    "size or batch"
                )
            loaded.context.set_tensor_address(name, array.address)
        if missing := loaded.context.infer_shapes():
            raise IncompatibleError(f"{self.name}: the engine also needs {missing}; build it again")
        results = {t.name: self._result(t.name, t.name in keep, loaded) for t in self.spec.outputs}
        if not loaded.context.execute_async_v3(driver.stream):
            raise IncompatibleError(f"{self.name}: TensorRT for RTX could not run the engine; update the NVIDIA driver")
        outputs: dict[str, Value] = {n: a if n in keep else np.asarray(a) for n, a in results.items()}
        driver.synchronize()
        return outputs

    def _opened(self) -> _Loaded:
        self.load()
        assert self._loaded is not None
        return self._loaded

    def _declared(self, name: str) -> np.dtype:
        return next(np.dtype(t.dtype) for t in (*self.spec.inputs, *self.spec.outputs) if t.name == name)

    def _fill(self, name: str, value: Value, loaded: _Loaded) -> CudaArray:
        """The tensor's own buffer with the value in it, or the value where it is on the GPU already."""
        dtype = loaded.dtypes[name]
        if isinstance(value, CudaArray) and value.stored == dtype:
            return value
        host = np.ascontiguousarray(value, dtype=dtype)
        buffer = self._buffer(name, host.shape, loaded)
        self.device.upload(buffer, host)
        return buffer

    def _result(self, name: str, kept: bool, loaded: _Loaded) -> CudaArray:
        """Where an output goes: memory of its own if it is to stay, else the tensor's buffer."""
        shape, dtype = tuple(loaded.context.get_tensor_shape(name)), loaded.dtypes[name]
        if kept:
            array = self.device.empty(shape, dtype).declared(self._declared(name))
        else:
            array = self._buffer(name, shape, loaded)
        loaded.context.set_tensor_address(name, array.address)
        return array

    def _buffer(self, name: str, shape: tuple[int, ...], loaded: _Loaded) -> CudaArray:
        """The tensor's buffer in that shape; a larger one is allocated where it does not fit."""
        dtype, buffer = loaded.dtypes[name], loaded.buffers.get(name)
        size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        if buffer is None or buffer.capacity < size:
            if buffer is not None:
                buffer.release()
                del loaded.buffers[name]
            buffer = loaded.buffers[name] = self.device.empty(shape, dtype)
        return buffer.shaped(shape).declared(self._declared(name))

    def _load(self) -> _Loaded:
        path = checked_file(self._folder, self._entry, ENGINE_FILE)
        trt = import_tensorrt()
        self.device.driver.enter()
        runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            engine = runtime.deserialize_cuda_engine(content)
        if engine is None:
            raise IncompatibleError(
                f"{self.name}: TensorRT for RTX {trt.__version__} cannot open {path} on this GPU; build the engine for "
                "this GPU's generation with the installed version"
            )
        engine.weight_streaming_budget_v2 = int(engine.streamable_weights_size)  # before any context is made
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        context = engine.create_execution_context()
        if context is None:
            raise MemoryBudgetError(
                f"{self.name}: the GPU has no room for the engine; make a smaller picture or free memory"
            )
        dtypes = {name: np.dtype(trt.nptype(engine.get_tensor_dtype(name))) for name in names}
        return _Loaded(engine=engine, context=context, dtypes=dtypes, buffers={})


def import_tensorrt() -> Any:
    """The `tensorrt_rtx` package, or an `IncompatibleError` that says how to install it."""
    try:
        import tensorrt_rtx
    except (ImportError, OSError) as error:
        raise IncompatibleError(
            f"engines for TensorRT for RTX need it, and it is not here ({error}); {install_advice('rtx')}"
        ) from error
    return tensorrt_rtx
