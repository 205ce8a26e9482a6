"""The segments of a banded component, compiled by OpenVINO for the bands of one picture's size.

Each is compiled when its turn comes, for its highest band. A lower one, the last of a picture whose rows do not divide,
is given as many rows as the others, and what comes of those beyond is dropped: compiling anew would take longer.
"""

from collections.abc import Mapping
from concurrent.futures import Executor, Future
from pathlib import Path
from threading import Lock, local
from typing import Any

import numpy as np

from ..bands.program import LAST, SUM_MEAN, SUM_SQUARES, BandProgram, Segment
from ..bands.sizes import band_shapes
from ..bands.walk import Band, Sums
from .openvino_session import SETTINGS, import_openvino, openvino_error
from .processor import forbids_bfloat16

EXACT = {"INFERENCE_PRECISION_HINT": "f32"}
"""Of all segments but those that multiply floats, which are several times as fast in what the processor likes best
(bfloat16, with AMX). What is done to single numbers around products of 8 bits takes no longer in float32."""


class OpenVinoSegments:
    """What its segments are compiled from. Several threads may call it."""

    def __init__(
        self, name: str, program: BandProgram, files: Mapping[str, Path], *, threads: int, lanes: int, exact: bool
    ) -> None:
        """`files`: of each segment, by its value, checked. `exact`: all is in float32."""
        self.program = program
        self._name, self._files = name, files
        self._exact = exact or forbids_bfloat16()  # OpenVINO would choose it without asking oneDNN
        self._settings = {**SETTINGS, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": lanes}
        self._core = import_openvino().Core()

    def compiled(self, segment: Segment, rows: int, columns: int) -> "SegmentModel":
        """A segment for so many latents. Raises as `OpenVinoSession` does."""
        file = self._files[segment.value]
        settings = self._settings if segment.floats and not self._exact else {**self._settings, **EXACT}
        shapes = {
            name: tuple(shape[axis] for axis in LAST) if len(shape) == 4 else shape
            for name, shape in band_shapes(self.program, segment, rows, columns).items()
        }
        try:
            model = self._core.read_model(file)
            model.reshape({name: list(shape) for name, shape in shapes.items()})
            compiled = self._core.compile_model(model, "CPU", settings)
        except RuntimeError as error:
            raise openvino_error(error, self._name, file, "compile") from error
        return SegmentModel(self._name, file, compiled, shapes)


class InTurn:
    """The models of a picture's segments while it is made: the one that computes, and the next one.

    All of them together would keep several times what the picture itself takes, so that each is compiled while the one
    before computes, and goes with it.
    """

    def __init__(self, segments: OpenVinoSegments, rows: int, columns: int, executor: Executor) -> None:
        """`executor` has a thread for compiling."""
        self._segments, self._size, self._executor = segments, (rows, columns), executor
        self._coming: dict[str, Future[SegmentModel]] = {}
        order = segments.program.segments
        self._next = {one.value: after for one, after in zip(order, (*order[1:], None), strict=True)}
        self._lock = Lock()
        self._start(order[0])

    def model(self, segment: Segment) -> "SegmentModel":
        """The segment's. Those before it have been computed. Raises as `OpenVinoSegments.compiled` does."""
        with self._lock:
            after = self._next[segment.value]
            for value in set(self._coming) - {segment.value, after and after.value}:
                del self._coming[value]
            for one in (segment, after):
                if one is not None and one.value not in self._coming:
                    self._start(one)
            coming = self._coming[segment.value]
        return coming.result()

    def _start(self, segment: Segment) -> None:
        self._coming[segment.value] = self._executor.submit(self._segments.compiled, segment, *self._size)


class SegmentModel:
    """A compiled segment; each thread that calls it has a request of its own."""

    def __init__(self, name: str, file: Path, compiled: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._name, self._file, self._compiled, self._shapes = name, file, compiled, shapes
        given = {name for output in compiled.outputs for name in output.get_names()}
        self._sums = [name for name in (SUM_MEAN, SUM_SQUARES) if name in given]
        self._own = local()

    def run(self, band: Band) -> Sums | None:
        """Fill the band's output; its sums if the value has a norm.

        Raises `IncompatibleError` and `MemoryBudgetError`.
        """
        try:
            return self._run(band)
        except RuntimeError as error:
            raise openvino_error(error, self._name, self._file, "run") from error

    def _run(self, band: Band) -> Sums | None:
        request, value = self._request(), band.segment.value
        given = {name: _laid(array) for name, array in band.inputs.items()}
        output = _laid(band.output)
        lower = any(array.shape != self._shapes[name] for name, array in given.items())
        if lower:
            given = {name: _extended(array, self._shapes[name]) for name, array in given.items()}
        room = np.empty(self._compiled.output(value).shape, output.dtype) if lower else output
        request.set_tensor(value, _tensor(room))
        for name, array in given.items():
            request.set_tensor(name, _tensor(array))
        request.infer()
        sums = tuple(np.array(request.get_tensor(name).data) for name in self._sums)
        if lower:
            output[:] = room[:, : output.shape[1]]
            sums = _sums(output) if sums else ()
        return (sums[0], sums[1]) if sums else None

    def _request(self) -> Any:
        if not hasattr(self._own, "request"):
            self._own.request = self._compiled.create_infer_request()
        return self._own.request


def _tensor(array: np.ndarray) -> Any:
    """The same memory; 16 bits are bfloat16."""
    openvino = import_openvino()
    if array.dtype == np.uint16:
        return openvino.Tensor(array, openvino.Shape(array.shape), openvino.Type.bf16)
    return openvino.Tensor(array, shared_memory=True)


def _laid(array: np.ndarray) -> np.ndarray:
    """As the graph has it; of the store's arrays a view."""
    return np.ascontiguousarray(array.transpose(LAST)) if array.ndim == 4 else array


def _extended(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """With zeros behind, along the second axis."""
    if array.shape == shape:
        return array
    found = np.zeros(shape, array.dtype)
    found[:, : array.shape[1]] = array
    return found


def _sums(array: np.ndarray) -> Sums:
    """What a graph's own sums are, of a band `[1, rows, columns, channels]`."""
    if array.dtype == np.uint16:
        array = (array.astype(np.uint32) << 16).view(np.float32)
    mean = array.mean((0, 1, 2), dtype=np.float64)
    return mean.astype(np.float32), np.square(array - mean).mean((0, 1, 2)).astype(np.float32)
