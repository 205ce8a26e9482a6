"""Components on TensorRT for RTX, or on TensorRT.

Written to the documented API and not yet run on a GPU; its test is marked `gpu`.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..bands.edge import parted
from ..folder.files import FileEntry
from ..folder.manifest import ComponentEntry, checked_path
from ..folder.variants import chosen_file, only_file
from .base import Footprint, Held, Sizes, Value, Values, check_inputs
from .buffers import Buffers, CudaHeld
from .device import CudaArray, CudaDevice
from .gpu_runner import GpuRunner
from .tensorrt_bands import Segments
from .tensorrt_bindings import Bindings
from .tensorrt_engine import TensorRTEngine
from .tensorrt_library import import_tensorrt
from .tensorrt_refusal import run_refusal
from .tensorrt_rtx_engine import RtxEngine

__all__ = ["ENGINE_FILE", "CudaDevice", "FullTensorRTRunner", "TensorRTRunner", "import_tensorrt"]

ENGINE_FILE = "model.engine"
"""Of a component; where it has others for other GPU generations, these are `model.sm75.engine` and so on."""


@dataclass(kw_only=True)
class _Loaded:
    """What there is between `load` and `release`."""

    context: Any
    bindings: Bindings
    buffers: Buffers
    dtypes: dict[str, np.dtype]


class TensorRTRunner(GpuRunner):
    """Runs `<component>/model.engine`, or the file for the GPU's generation, on the first GPU, by TensorRT for RTX."""

    kind: ClassVar[type[TensorRTEngine]] = RtxEngine

    def __init__(self, folder: Path, name: str, entry: ComponentEntry, device: CudaDevice) -> None:
        super().__init__(folder, name, entry, device)
        self._engine: TensorRTEngine | None = None
        self._loaded: _Loaded | None = None
        self._segments: Segments | None = None
        self._over_bands = False
        device.closing.append(self._close)

    @property
    def loaded(self) -> bool:
        """True between `load` and `release`."""
        return self._loaded is not None or self._over_bands

    def load(self) -> None:
        """Check the hash, then bring the engine in. `IntegrityError`, `IncompatibleError`, `MemoryBudgetError`."""
        if not self._over_bands:
            self._ready()

    def streamed(self, sizes: Sizes) -> Footprint | None:
        """See `Streams`: over bands of rows, all weights on the GPU. Working memory is counted as scratch."""
        streaming = self._entry.streaming
        if streaming is None:
            return None
        models = (streaming.activation, streaming.carried)
        working = sum(m.bytes_at(sizes.pixels, batch=1, tokens=sizes.tokens, steps=sizes.steps) for m in models)
        weights = sum(segment.size for segment in streaming.segments)
        return Footprint(pool="device", weights=weights, working=working, scratch=True)

    def load_streamed(self) -> None:
        """See `Streams`; raises as `load` does."""
        if self.loaded:
            return
        if self.device.forked:
            self.leave_behind()
        if self._segments is None:
            streaming = self._entry.streaming
            assert streaming is not None, "the plan asks `streamed` first"
            self._segments = Segments(self._folder, self.name, self._entry, streaming, self.device, self.kind)
        self._segments.load()
        self._over_bands = True

    def release(self) -> None:
        """Give the GPU's memory back, and the scratch too: for what runs next it may be too large."""
        if self._over_bands and self._segments is not None:
            self._over_bands = False
            self._segments.release()
        if self._loaded is None or self._engine is None:
            return
        loaded, self._loaded = self._loaded, None
        self.device.driver.enter()
        self.device.driver.synchronize()  # an exception may have left a call running
        loaded.buffers.release()
        self._engine.unload()
        self.device.drop_scratch()

    def hold(self, inputs: Values) -> Held:
        """Copy them to the GPU in the engine's types; what is there already in its type is taken as it is."""
        dtypes = self._ready().dtypes
        return CudaHeld({name: self.device.array(value, dtypes[name]) for name, value in inputs.items()})

    def __call__(self, inputs: Values, held: Held | None = None, *, keep: Collection[str] = ()) -> dict[str, Value]:
        """Run once; see `Runner`. A size outside the engine's range is a `RequestError` that names it."""
        constant = held.arrays if isinstance(held, CudaHeld) else {}
        everything = {**inputs, **constant}
        check_inputs(self.name, self.spec, everything)
        if self._over_bands and self._segments is not None:
            (given,) = self.spec.inputs
            return {**parted(self._segments(np.asarray(everything[given.name])), self.spec)}
        loaded = self._ready()
        self.device.driver.enter()
        self.device.driver.synchronize()  # an exception may have left a copy or a call under way
        loaded.bindings.shapes({name: tuple(value.shape) for name, value in everything.items()})
        loaded.bindings.scratch(self.device)
        for name, value in everything.items():
            loaded.bindings.address(name, self._input(name, value, loaded).address)
        outputs: dict[str, CudaArray] = {}
        for tensor in self.spec.outputs:
            outputs[tensor.name] = self._output(tensor.name, np.dtype(tensor.dtype), tensor.name in keep, loaded)
            loaded.bindings.address(tensor.name, outputs[tensor.name].address)
        self._execute(loaded)
        return self._fetched(outputs, keep, loaded)

    def _ready(self) -> _Loaded:
        if self._loaded is None:
            if self.device.forked:
                self.leave_behind()
            file = self._file()
            path = checked_path(self._folder, file)
            if self._engine is None:
                trt = import_tensorrt(self.kind.library)
                self.device.driver.enter()
                self._engine = self.kind(trt, path, self.device, size=file.size, digest=file.sha256)
            self.device.driver.enter()
            try:
                self._engine.load()
                self._loaded = _Loaded(
                    context=self._engine.context,
                    bindings=Bindings(self.name, self._engine.engine, self._engine.context),
                    buffers=Buffers(self.device),
                    dtypes=self._engine.dtypes,
                )
            except BaseException:  # Ctrl-C too: nothing knows of what it has taken by then
                self._engine.close()
                raise
        return self._loaded

    def _file(self) -> FileEntry:
        """The file for the card at hand: of several, which it is says the driver, before any of them is read."""
        if (only := only_file(self._entry)) is not None:
            return only
        driver = self.device.driver
        return chosen_file(self._entry, self.device.architecture, folder=self._folder, gpu=driver.device_name())

    def _input(self, name: str, value: Value, loaded: _Loaded) -> CudaArray:
        """The value on the GPU: where it is already in the engine's type, or on its way into the tensor's buffer."""
        dtype = loaded.dtypes[name]
        if isinstance(value, CudaArray) and value.stored == dtype:
            return value
        return loaded.buffers.upload(name, np.asarray(value), dtype)

    def _output(self, name: str, declared: np.dtype, kept: bool, loaded: _Loaded) -> CudaArray:
        """Where an output goes: memory of its own if it is to stay, else the tensor's buffer."""
        shape, dtype = tuple(loaded.context.get_tensor_shape(name)), loaded.dtypes[name]
        if kept:
            return self.device.empty(shape, dtype).declared(declared)
        return loaded.buffers.sized(name, shape, dtype).there.shaped(shape).declared(declared)

    def _execute(self, loaded: _Loaded) -> None:
        assert self._engine is not None
        self._engine.log.forget()
        if not loaded.context.execute_async_v3(self.device.driver.stream):
            raise run_refusal(self.name, self.kind.library, self._engine.log)

    def _fetched(self, outputs: dict[str, CudaArray], keep: Collection[str], loaded: _Loaded) -> dict[str, Value]:
        """Wait for the call's end; fresh host arrays in the places of those that are not to stay."""
        driver = self.device.driver
        here = {}
        for name in set(outputs) - set(keep):
            here[name] = loaded.buffers[name].here.array(outputs[name].shape, outputs[name].stored)
            driver.download(here[name], outputs[name].address)
        driver.synchronize()
        return {name: here[name].astype(array.dtype) if name in here else array for name, array in outputs.items()}

    def _close(self) -> None:
        """Let go of the library's objects while the device is still open."""
        self.release()
        if self._engine is not None:
            self._engine.close()
            self._engine = None
        if self._segments is not None:
            self._segments.close()
            self._segments = None


class FullTensorRTRunner(TensorRTRunner):
    """The same by TensorRT."""

    kind = TensorRTEngine
