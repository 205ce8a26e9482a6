"""Components on ONNX Runtime's CPU provider."""

from collections.abc import Collection, Mapping
from functools import cached_property, partial
from math import ceil, log2
from pathlib import Path
from typing import Any

import numpy as np

from ..ending import Ended
from ..folder.manifest import ComponentEntry, checked_file
from ..specs import Role
from .base import Footprint, Held, HostHeld, Pool, Sizes, Value, Values, check_inputs
from .interruptible import run_interruptibly
from .ort_session import (
    check_edge,
    import_onnxruntime,
    load_error,
    open_session,
    run_error,
    run_options,
    trim_heap,
)
from .processor import adds_in_16_bits, available_cores, processor_name

MODEL_FILE = "model.onnx"

# Measured on full-size SDXL, component by component and as whole pictures
# (benchmarks/results/2026-11-24-memory-epyc-2-cores.json).
# The interpreter, numpy, Pillow, tokenizers and ONNX Runtime's library before the first weight.
RUNTIME_BYTES = 150 << 20
# Beyond the weights: the graph, and copies in the layouts that kernels want. Float convolutions have whole copies,
# and the originals stay.
WEIGHT_OVERHEAD: Mapping[Role, float] = {Role.VAE_DECODER: 1.9}
OTHER_WEIGHT_OVERHEAD = 1.04
# Where weights become unsigned, ONNX Runtime keeps them beside what it packs: 895 MB for 400 MB of int8.
UNSIGNED_COPIES = 1.25
# The arena grows by regions of doubling size, so it ends at a power of two; a third more than what is alive at once is
# what its gaps cost, and some is taken beside it, more with every picture. Eleven sizes of the VAE were 0.71 to 0.96 of
# this for one picture, four pictures up to 0.99.
ARENA_GAPS = 1.32
BESIDE_ARENA = 1.08
# ONNX Runtime's order of execution puts many `DequantizeLinear`s long before the products that they feed. Of all
# dequantized weights 0.52 to 0.63 were alive at once in the large text encoder, none in the conditioners.
DEQUANTIZED_AHEAD = 0.66


# Sessions of another process that this one was forked from: their threads are not here, so they cannot even be closed.
_LEFT_BEHIND: list[Any] = []


class OrtDevice:
    """The processor: the number of `threads` inside one operator (None: one per core that is ours)."""

    overhead: Mapping[Pool, int] = {"host": RUNTIME_BYTES}
    concurrent = True
    room = None
    in_use = None

    def __init__(self, *, threads: int | None = None) -> None:
        self.threads = available_cores() if threads is None else threads

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

    @property
    def loaded(self) -> bool:
        """True between `load` and `release`."""
        return self._session is not None

    @property
    def threads(self) -> int:
        """As many as the device has, but no more than those with which sums come out the same as with one."""
        most = self._entry.exact_threads
        return self.device.threads if most is None else min(self.device.threads, most)

    def footprint(self, sizes: Sizes) -> Footprint:
        """See `Runner`; what a U-Net's arena has grown to stays until it is released, others give theirs back."""
        role, activation = self.spec.role, self._entry.activation
        alive = activation.bytes_at(sizes.pixels, batch=sizes.rows, tokens=sizes.tokens, steps=sizes.steps)
        working = arena_bytes(alive)
        if role is not Role.CONDITIONER:
            working += int(DEQUANTIZED_AHEAD * activation.dequantized_bytes)
        weights = int(WEIGHT_OVERHEAD.get(role, OTHER_WEIGHT_OVERHEAD) * self._entry.weight_bytes)
        if adds_in_16_bits():
            weights += int(UNSIGNED_COPIES * self._entry.int8_bytes)
        retained = working if role is Role.UNET else 0
        return Footprint(pool="host", weights=weights, working=working, retained=retained)

    def load(self) -> None:
        """Check every file's hash, then create the session. Raises `IntegrityError` or `IncompatibleError`."""
        if self.loaded:
            return
        import_onnxruntime()
        # What earlier components' arrays leave behind is freed by now, but not yet given back.
        trim_heap()
        model = checked_file(self._folder, self._entry, MODEL_FILE)
        try:
            session = open_session(model, self.threads, patterns=not self._shrinks)
        except Exception as error:
            raise load_error(error, self.name, model, self._entry.weight_bytes / 1e9) from error
        check_edge(self.name, session, self.spec)
        self._session = session

    def release(self) -> None:
        """Drop the session and give its memory back to the system."""
        if self.loaded:
            self._session = None
            trim_heap()

    def leave_behind(self) -> None:
        """Forget the session of the process that this one was forked from; its pages stay shared with that one."""
        _LEFT_BEHIND.append(self._session)
        self._session = None

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
        session, outputs = self._session, [t.name for t in self.spec.outputs]
        options = run_options(import_onnxruntime(), shrink=self._shrinks)
        try:
            values: list[np.ndarray] = run_interruptibly(
                lambda: session.run(outputs, feeds, options), partial(setattr, options, "terminate", True)
            )
            # Copies: an output lies in the session's arena, and would keep the whole region there after the release.
            return {name: np.array(value) for name, value in zip(outputs, values, strict=True)}
        except Ended:
            raise
        except Exception as error:
            raise run_error(error, self.name) from error

    @property
    def _shrinks(self) -> bool:
        """Whether the arena is given back after each run."""
        return self.spec.role is not Role.UNET


def arena_bytes(alive: int) -> int:
    """What ONNX Runtime's arena grows to for `alive` bytes at once."""
    return int(BESIDE_ARENA * 2 ** ceil(log2(ARENA_GAPS * alive))) if alive else 0
