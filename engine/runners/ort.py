"""Components on ONNX Runtime's CPU provider."""

import os
from collections.abc import Collection, Mapping
from functools import cached_property
from math import ceil, log2
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import IncompatibleError, MemoryBudgetError
from ..folder.manifest import ComponentEntry, checked_path
from ..specs import Role
from .base import Footprint, Held, HostHeld, Pool, Sizes, Value, Values, check_inputs
from .processor import processor_name

MODEL_FILE = "model.onnx"

# Measured on full-size SDXL, component by component and as whole pictures
# (benchmarks/results/2026-11-24-memory-epyc-2-cores.json).
# The interpreter, numpy, Pillow, tokenizers and ONNX Runtime's library before the first weight.
RUNTIME_BYTES = 150 << 20
# Beyond the weights: the graph, and copies in the layouts that kernels want. Float convolutions have whole copies,
# and the originals stay.
WEIGHT_OVERHEAD: Mapping[Role, float] = {Role.VAE_DECODER: 1.9}
OTHER_WEIGHT_OVERHEAD = 1.04
# The arena grows by regions of doubling size, so it ends at a power of two; a third more than what is alive at once is
# what its gaps cost, and some is taken beside it, more with every picture. Eleven sizes of the VAE were 0.71 to 0.96 of
# this for one picture, four pictures up to 0.99.
ARENA_GAPS = 1.32
BESIDE_ARENA = 1.08
# ONNX Runtime's order of execution puts many `DequantizeLinear`s long before the products that they feed. Of all
# dequantized weights 0.52 to 0.63 were alive at once in the large text encoder, none in the conditioners.
DEQUANTIZED_AHEAD = 0.66


class OrtDevice:
    """The processor: the number of `threads` inside one operator (None: one per physical core)."""

    overhead: Mapping[Pool, int] = {"host": RUNTIME_BYTES}

    def __init__(self, *, threads: int | None = None) -> None:
        self.threads = threads

    @cached_property
    def name(self) -> str:
        """The processor, and which of the instructions it has that integer kernels differ by."""
        return processor_name()

    def close(self) -> None:
        """Nothing is open."""


class OrtRunner:
    """Runs `<component>/model.onnx` of an engine folder.

    One row a call: a quantized U-Net takes its activation ranges from all rows together, so only alone is a picture the
    same in every batch; it also keeps the working memory at that of one row, and a processor gains nothing from more.
    """

    rows = 1

    def __init__(self, folder: Path, name: str, entry: ComponentEntry, device: OrtDevice) -> None:
        self.name = name
        self.spec = entry.spec
        self.device = device
        self._folder = folder
        self._entry = entry
        self._session: Any = None
        self._run_options: Any = None

    @property
    def loaded(self) -> bool:
        """True between `load` and `release`."""
        return self._session is not None

    def footprint(self, sizes: Sizes) -> Footprint:
        """See `Runner`; what a U-Net's arena has grown to stays until it is released, others give theirs back."""
        role, activation = self.spec.role, self._entry.activation
        alive = activation.bytes_at(sizes.pixels, batch=sizes.rows, tokens=sizes.tokens, steps=sizes.steps)
        working = arena_bytes(alive)
        if role is not Role.CONDITIONER:
            working += int(DEQUANTIZED_AHEAD * activation.dequantized_bytes)
        weights = int(WEIGHT_OVERHEAD.get(role, OTHER_WEIGHT_OVERHEAD) * self._entry.weight_bytes)
        retained = working if role is Role.UNET else 0
        return Footprint(pool="host", weights=weights, working=working, retained=retained)

    def load(self) -> None:
        """Check every file's hash, then create the session. Raises `IntegrityError` or `IncompatibleError`."""
        if self.loaded:
            return
        ort = import_onnxruntime()
        # What earlier components' arrays leave behind is freed by now, but not yet given back.
        _trim_heap()
        # All files first: ONNX Runtime opens the external data by itself.
        paths = [checked_path(self._folder, file) for file in self._entry.files]
        model = next(path for path in paths if path.name == MODEL_FILE)
        shrink = self.spec.role is not Role.UNET
        try:
            self._session = ort.InferenceSession(
                os.fspath(model),
                _session_options(ort, self.device.threads, patterns=not shrink),
                providers=["CPUExecutionProvider"],
            )
            self._run_options = _run_options(ort, shrink=shrink)
        except MemoryError as error:
            size = f"{self._entry.weight_bytes / 1e9:.1f} GB"
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

    def hold(self, inputs: Values) -> Held:
        """The arrays themselves, laid out as ONNX Runtime reads them."""
        return HostHeld({name: np.ascontiguousarray(value) for name, value in inputs.items()})

    def __call__(self, inputs: Values, held: Held | None = None, *, keep: Collection[str] = ()) -> dict[str, Value]:
        """Run once; see `Runner`. Everything is on the host anyway, so `keep` changes nothing."""
        feeds = {name: np.ascontiguousarray(value) for name, value in inputs.items()}
        if isinstance(held, HostHeld):
            feeds |= held.inputs
        check_inputs(self.name, self.spec, feeds)
        self.load()
        outputs = [t.name for t in self.spec.outputs]
        values: list[np.ndarray] = self._session.run(outputs, feeds, self._run_options)
        # Copies: an output lies in the session's arena, and would keep the whole region there after the release.
        return {name: np.array(value) for name, value in zip(outputs, values, strict=True)}


def arena_bytes(alive: int) -> int:
    """What ONNX Runtime's arena grows to for `alive` bytes at once."""
    return int(BESIDE_ARENA * 2 ** ceil(log2(ARENA_GAPS * alive))) if alive else 0


def import_onnxruntime() -> Any:
    """ONNX Runtime, or an `IncompatibleError` that says how to install it."""
    try:
        import onnxruntime
    except ImportError as error:
        raise IncompatibleError(
            "this engine runs on ONNX Runtime; install it with: pip install 'pocketxl[cpu]'"
        ) from error
    return onnxruntime


def _session_options(ort: Any, threads: int | None, *, patterns: bool) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    # The arena stays on, ONNX Runtime's default. Without it the C library's heap fragments: SDXL's U-Net took 3.0 GB
    # and 17.8 s a call at 1024x1024 instead of 2.6 GB and 14.0 s.
    # Patterns are off where the arena is given back after each run. With them, calls of four pictures at 512x512 came
    # to 2.5 GB in the VAE, without them to 1.7; the VAE alone does not show it, and why is not understood.
    options.enable_mem_pattern = patterns
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
