"""A component's graph as ONNX Runtime runs it, with its weights as the kernels of this processor want them, kept.

A session otherwise makes both each time: it rewrites the graph, and copies the weights in layouts of its kernels. What
it kept once it maps from the file, so that processes share it.
"""

import errno
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import IncompatibleError
from ..folder.manifest import ComponentEntry
from ..specs import ComponentSpec, Role
from .base import Preparation
from .ort_memory import is_half
from .ort_session import import_onnxruntime, trim_heap
from .prepared_files import GRAPH, WEIGHTS, PreparedFiles
from .processor import adds_in_16_bits, multiplies_in_tiles, processor_facts

ROLES = frozenset({Role.UNET, Role.TEXT_ENCODER})
"""Of what gains by it: a full-size conditioner is loaded in a seventh of a second without (`benchmarks.prepared`)."""
MOST_COPIES = 2.2
"""Of weights on the disk; what kernels want is padded."""
GRAPH_BYTES = 32 << 20
_FORM = 1
_MARK = b"prepacked_"
_NOT_WRITTEN = "Failed to write"
"""ONNX Runtime's words for a disk or a quota that takes no more."""
_SIZE, _SIZES = 1, {"tokens": 77, "height": 8, "width": 8}


def kept_of(model: Path, entry: ComponentEntry) -> PreparedFiles:
    """What was kept of a component for this processor, this ONNX Runtime, and the settings that its sessions have."""
    ort = import_onnxruntime()
    build = getattr(ort, "get_build_info", str)()
    settings = (adds_in_16_bits(), entry.int8_bytes > 0 and multiplies_in_tiles())
    files = sorted((file.name, file.sha256) for file in entry.files)
    return PreparedFiles(model, repr((_FORM, ort.__version__, build, processor_facts(), settings, files)))


def prepare(
    files: PreparedFiles,
    entry: ComponentEntry,
    original: Callable[..., Any],
    prepared: Callable[[Path], Any],
) -> Preparation:
    """Keep a component unless it is kept, and hold what was kept to it.

    What is there is hashed, for no start does that, nor `verify`; if the disk has changed it, it is made anew.
    `original` makes its session, with `keep_as` one that keeps itself; `prepared` makes one of what was kept. Raises
    what they raise, `StorageError` where it cannot be written, and `IncompatibleError` for an ONNX Runtime that cannot
    keep weights, or gives other numbers with them; what was written is deleted again.
    """
    begun = time.perf_counter()
    if (graph := files.find(anew=True)) is not None:
        with suppress(IncompatibleError):  # it was removed a moment ago
            _, seconds = _timed(partial(prepared, graph))
            return Preparation(bytes=0, seconds=time.perf_counter() - begun, load_seconds=seconds)
    session, before = _timed(original)
    inputs = _inputs(entry.spec)
    expected = session.run(None, inputs)
    del session
    trim_heap()
    after = 0.0

    def make(folder: Path) -> None:
        nonlocal after
        try:
            original(keep_as=(folder / GRAPH, WEIGHTS))
        except IncompatibleError as error:  # it was opened a moment ago, so it is the keeping
            if _NOT_WRITTEN in str(error):
                raise OSError(errno.EFBIG, "ONNX Runtime could not write it") from error
            raise IncompatibleError(
                f"ONNX Runtime {import_onnxruntime().__version__} cannot keep this graph; nothing was kept. Install "
                f"another version, or go without: only the start takes longer. It says: {error.__cause__ or error}"
            ) from error
        trim_heap()
        if not (folder / WEIGHTS).is_file() or _MARK not in (folder / GRAPH).read_bytes():
            raise IncompatibleError(
                f"ONNX Runtime {import_onnxruntime().__version__} does not keep weights as its kernels want them; "
                "install a newer one, or go without: only the start takes longer"
            )
        session, after = _timed(partial(prepared, folder / GRAPH))
        found = session.run(None, inputs)
        if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(expected, found, strict=True)):
            raise IncompatibleError(
                f"ONNX Runtime {import_onnxruntime().__version__} gives other numbers with weights that it has kept; "
                "nothing was kept. Install another version, or go without: only the start takes longer"
            )

    size = files.write(make, _most_bytes(entry))
    seconds = time.perf_counter() - begun
    return Preparation(bytes=size, seconds=seconds, load_seconds=after, load_seconds_before=before)


def _most_bytes(entry: ComponentEntry) -> int:
    """What may be written: weights as they are and as kernels want them, those in half precision as float32."""
    return int(MOST_COPIES * (2 if is_half(entry) else 1) * entry.weight_bytes) + GRAPH_BYTES


def _inputs(spec: ComponentSpec) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shapes = {
        tensor.name: [_SIZES.get(d, _SIZE) if isinstance(d, str) else d for d in tensor.shape] for tensor in spec.inputs
    }
    return {
        tensor.name: random.standard_normal(shapes[tensor.name]).astype(tensor.dtype)
        if tensor.dtype.startswith("float")
        else np.ones(shapes[tensor.name], tensor.dtype)
        for tensor in spec.inputs
    }


def _timed(make: Callable[[], Any]) -> tuple[Any, float]:
    begun = time.perf_counter()
    return make(), time.perf_counter() - begun
