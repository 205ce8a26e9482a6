"""A component on ONNX Runtime's CPU provider."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import IncompatibleError, MemoryBudgetError
from ..folder.manifest import ComponentEntry, checked_path
from .base import Arrays, check_inputs

MODEL_FILE = "model.onnx"


class OrtRunner:
    """Runs `<component>/model.onnx` of an engine folder.

    `threads` is the number of threads inside one operator (None: one per physical core, as ONNX Runtime decides).
    """

    def __init__(self, folder: Path, name: str, entry: ComponentEntry, *, threads: int | None = None) -> None:
        self.name = name
        self.spec = entry.spec
        self.weight_bytes = entry.weight_bytes
        self._folder = folder
        self._entry = entry
        self._threads = threads
        self._session: Any = None
        self._run_options: Any = None

    @property
    def loaded(self) -> bool:
        """True between `load` and `release`."""
        return self._session is not None

    def load(self) -> None:
        """Check every file's hash, then create the session. Raises `IntegrityError` or `IncompatibleError`."""
        if self.loaded:
            return
        ort = import_onnxruntime()
        # All files first: ONNX Runtime opens the external data by itself.
        paths = [checked_path(self._folder, file) for file in self._entry.files]
        model = next(path for path in paths if path.name == MODEL_FILE)
        try:
            self._session = ort.InferenceSession(
                os.fspath(model), _session_options(ort, self._threads), providers=["CPUExecutionProvider"]
            )
            self._run_options = _run_options(ort, shrink=not self.name.endswith("/unet"))
        except MemoryError as error:
            size = f"{self.weight_bytes / 1e9:.1f} GB"
            raise MemoryBudgetError(f"{self.name}: not enough memory to load {size}") from error
        except Exception as error:
            raise IncompatibleError(
                f"{self.name}: ONNX Runtime {ort.__version__} cannot load {model}: {error}. Rebuild the engine with "
                "this version, or install the version that engine.json names."
            ) from error

    def release(self) -> None:
        """Drop the session and give its memory back to the system."""
        if self.loaded:
            self._session = None
            _trim_heap()

    def __call__(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Run once; see `Runner`."""
        check_inputs(self.name, self.spec, inputs)
        self.load()
        outputs = [t.name for t in self.spec.outputs]
        feeds = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        values: list[np.ndarray] = self._session.run(outputs, feeds, self._run_options)
        return dict(zip(outputs, values, strict=True))


def import_onnxruntime() -> Any:
    """ONNX Runtime, or an `IncompatibleError` that says how to install it."""
    try:
        import onnxruntime
    except ImportError as error:
        raise IncompatibleError(
            "this engine runs on ONNX Runtime; install it with: pip install 'pocketxl[cpu]'"
        ) from error
    return onnxruntime


def _session_options(ort: Any, threads: int | None) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Arena and pattern planner stay on, ONNX Runtime's defaults. Without them the C library's heap fragments: SDXL's
    # U-Net took 3.0 GB and 17.8 s a call at 1024x1024 instead of 2.6 GB and 14.0 s.
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


def _run_options(ort: Any, *, shrink: bool) -> Any:
    """`shrink`: give the arena back after each run; for components that run once a picture, not in its loop."""
    options = ort.RunOptions()
    if shrink:
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def _trim_heap() -> None:
    """Return freed heap pages to the system (glibc keeps them otherwise, which doubles the peak of a swap)."""
    import ctypes

    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return  # not glibc: nothing to trim
