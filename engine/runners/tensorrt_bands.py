"""A component of TensorRT for RTX in segments over bands of rows, where the card has no place for it as a whole.

An engine for each segment; what lies between them stays on the card (`DeviceStore`), and only the sums of the bands'
norms come to the host. Not yet run on a GPU.
"""

from pathlib import Path
from typing import Any

import numpy as np

from ..bands.edge import latent_columns
from ..bands.program import SUM_MEAN, SUM_SQUARES
from ..bands.read import read_bands
from ..bands.walk import Band, Sums, walk
from ..folder.manifest import ComponentEntry, Streaming, checked_file, checked_path
from .buffers import Buffers
from .device import CudaArray, CudaDevice
from .device_store import DeviceStore
from .tensorrt_bindings import Bindings
from .tensorrt_engine import TensorRTEngine
from .tensorrt_library import import_tensorrt
from .tensorrt_refusal import run_refusal


class Segments:
    """All segments of one component, loaded together: their weights are small."""

    def __init__(
        self,
        folder: Path,
        name: str,
        entry: ComponentEntry,
        streaming: Streaming,
        device: CudaDevice,
        kind: type[TensorRTEngine],
    ) -> None:
        """Hash every file; nothing is on the GPU yet. Raises `IntegrityError`."""
        self._name = name
        self._device = device
        self._kind = kind
        self._program = read_bands(checked_file(folder, entry, streaming.program))
        trt = import_tensorrt(kind.library)
        device.driver.enter()
        self._engines: dict[str, TensorRTEngine] = {}
        self._bindings: dict[str, Bindings] = {}
        self._buffers = Buffers(device)
        for segment in self._program.segments:
            file = next(file for file in entry.files if file.name == segment.file)
            self._engines[segment.value] = kind(
                trt, checked_path(folder, file), device, size=file.size, digest=file.sha256
            )

    def load(self) -> None:
        """Bring the weights in. Raises `IncompatibleError` or `MemoryBudgetError`; nothing is loaded then."""
        self._device.driver.enter()
        try:
            for value, engine in self._engines.items():
                engine.load()
                self._bindings[value] = Bindings(f"{self._name} ({value})", engine.engine, engine.context)
        except BaseException:  # Ctrl-C too
            self.close()
            raise

    def release(self) -> None:
        """Take the weights off the GPU again."""
        self._device.driver.enter()
        self._device.driver.synchronize()  # an exception may have left a call running
        self._buffers.release()
        self._bindings.clear()
        for engine in self._engines.values():
            engine.unload()
        self._device.drop_scratch()

    def close(self) -> None:
        """Let go of the library's objects."""
        self._bindings.clear()
        self._buffers.release()
        for engine in self._engines.values():
            engine.close()

    def __call__(self, given: np.ndarray) -> np.ndarray:
        """`[rows, channels, s · h, s · w]` → the program's output for latents of h by w, row by row.

        Raises `RequestError` for sides that are no whole latents.
        """
        columns = latent_columns(self._name, self._program, given.shape)
        driver = self._device.driver
        driver.enter()
        driver.synchronize()  # an exception may have left a copy or a call under way
        rows = []
        for row in given:
            store = DeviceStore(self._device, columns)
            rows.append(walk(self._program, row[None], self._run, store))
        return np.concatenate(rows)

    def _run(self, band: Band) -> Sums | None:
        """One call to its end: what it was given may lie in memory that the next one's inputs are written to."""
        value = band.segment.value
        bindings, engine = self._bindings[value], self._engines[value]
        bindings.shapes({name: tuple(array.shape) for name, array in band.inputs.items()})
        bindings.scratch(self._device)
        for name, array in band.inputs.items():
            bindings.address(name, self._there(name, array).address)
        bindings.address(value, band.output.address)
        normed = self._program.values[value].norm is not None
        sums = [self._buffers.sized(name, (band.channels,), _FLOAT) for name in _SUMS] if normed else []
        for name, buffer in zip(_SUMS, sums, strict=False):
            bindings.address(name, buffer.there.address)
        engine.log.forget()
        if not engine.context.execute_async_v3(self._device.driver.stream):
            raise run_refusal(f"{self._name} ({value})", self._kind.library, engine.log)
        here = [buffer.here.array((band.channels,), _FLOAT) for buffer in sums]
        for array, buffer in zip(here, sums, strict=True):
            self._device.driver.download(array, buffer.there.address)
        self._device.driver.synchronize()
        if band.last:  # what runs where more is kept works with less
            self._device.drop_scratch()
        return (np.array(here[0]), np.array(here[1])) if here else None

    def _there(self, name: str, array: Any) -> CudaArray:
        """A band's input on the GPU; what the host has computed goes there now."""
        return array if isinstance(array, CudaArray) else self._buffers.upload(name, array, _FLOAT)


_FLOAT = np.dtype(np.float32)
_SUMS = (SUM_MEAN, SUM_SQUARES)
