"""A compiled model as it is kept between runs: its parts without their weights, which stay in the engine's own file.

To open what was compiled once takes OpenVINO less than half of the time. What it writes says where in the weights'
file each of them lies, so it is good for that very file alone: whoever names it (`good_for`) names its digest too.
"""

import json
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from .kernel_cache import KernelCache
from .openvino_parts import Part, compiled

WITHOUT_WEIGHTS = {"CACHE_MODE": "OPTIMIZE_SIZE"}
"""The setting with which a model must be compiled to be kept here."""


class KeptModel:
    """What was compiled of a file of OpenVINO's for one set of sizes."""

    def __init__(self, model: Path, weights: Path, good_for: str) -> None:
        self._cache = KernelCache(model, good_for)
        self._weights = weights

    def opened(self, core: Any, settings: dict[str, Any]) -> tuple[Part, ...] | None:
        """The parts as they were compiled with the same settings; None where there are none that OpenVINO takes."""
        if (content := self._cache.read()) is None:
            return None
        settings = {**settings, "WEIGHTS_PATH": str(self._weights)}
        try:
            return compiled(tuple(_parts(content)), lambda blob: core.import_model(BytesIO(blob), "CPU", settings))
        except (RuntimeError, BadZipFile, KeyError, ValueError):
            return None

    def keep(self, parts: Sequence[Part]) -> None:
        """For the next time. Where it cannot be written, nothing happens."""
        try:
            blobs = [bytes(part.model.export_model().getbuffer()) for part in parts]
        except RuntimeError:
            return
        edges = json.dumps([[len(blob), part.inputs, part.outputs] for blob, part in zip(blobs, parts, strict=True)])
        content = BytesIO()
        np.savez(content, edges=_bytes(edges.encode()), blobs=_bytes(b"".join(blobs)))
        self._cache.write(content.getvalue())


def _parts(content: bytes) -> Iterator[Part]:
    arrays = np.load(BytesIO(content), allow_pickle=False)
    blobs, begin = arrays["blobs"], 0
    for length, inputs, outputs in json.loads(arrays["edges"].tobytes()):
        model = blobs[begin : begin + length].tobytes()
        yield Part(model=model, inputs=tuple(inputs), outputs=tuple(outputs))
        begin += length


def _bytes(content: bytes) -> np.ndarray:
    return np.frombuffer(content, np.uint8)
