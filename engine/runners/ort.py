"""Components on ONNX Runtime, by its CPU provider or another."""

from collections.abc import Callable, Collection, Mapping
from functools import cached_property, partial
from math import ceil, log2
from pathlib import Path
from typing import Any

import numpy as np

from ..ending import Ended
from ..errors import IncompatibleError, PocketXLError
from ..folder.manifest import ComponentEntry, checked_file
from ..specs import Role
from .base import Footprint, Held, HostHeld, Pool, Range, Sizes, Value, Values, check_inputs
from .cores import available_cores
from .interruptible import run_interruptibly
from .ort_binding import BoundArray, BoundHeld, run_bound
from .ort_providers import CPU, HALF, Provider
from .ort_segments import Segments, bytes_of
from .ort_session import (
    check_edge,
    import_onnxruntime,
    lacks_memory,
    load_error,
    open_session,
    run_error,
    run_options,
    trim_heap,
)
from .ort_start import cannot_start, start_session
from .processor import adds_in_16_bits, processor_name

MODEL_FILE = "model.onnx"
DATA_FILE = f"{MODEL_FILE}.data"

# Measured on full-size SDXL, component by component and as whole pictures
# (benchmarks/results/2026-11-24-memory-epyc-2-cores.json).
# The interpreter, numpy, Pillow, tokenizers and ONNX Runtime's library before the first weight.
RUNTIME_BYTES = 150 << 20
DRIVER_BYTES = 300 << 20
# Beyond the weights: the graph, and copies in the layouts that kernels want. Float convolutions have whole copies,
# and the originals stay.
WEIGHT_OVERHEAD: Mapping[Role, float] = {Role.VAE_DECODER: 1.9}
OTHER_WEIGHT_OVERHEAD = 1.04
# What weights in half precision take, of which ONNX Runtime makes float32 for a processor, the file's own pages among
# it. Measured on a VAE of SDXL's size (3.98, and 5.7 for a moment, which its working memory hides), and on a U-Net of
# 479 million parameters (2.43, and 3.14 while it is loaded).
HALF_WEIGHTS: Mapping[Role, float] = {Role.VAE_DECODER: 4.0}
OTHER_HALF_WEIGHTS = 3.2
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


# Of a component that is streamed: its graphs, and what small things leave in the C library's heap.
STREAMED_BESIDE = 24 << 20
# From this share of integer products on, segments use their weights as they lie in the file.
PRODUCTS_OF_INT8 = 0.5


# Sessions of another process that this one was forked from: their threads are not here, so they cannot even be closed.
_LEFT_BEHIND: list[Any] = []


class OrtDevice:
    """What computes: a `provider`, with `threads` inside one operator (None: see `cores`)."""

    room = None  # ONNX Runtime tells neither of a GPU's
    in_use = None

    def __init__(self, *, threads: int | None = None, provider: Provider = CPU) -> None:
        self.threads = available_cores() if threads is None else threads
        self.provider = provider

    @property
    def concurrent(self) -> bool:
        """Only on a processor: DirectML forbids calls side by side, and a GPU gains nothing by them."""
        return self.provider.processor

    @property
    def overhead(self) -> Mapping[Pool, int]:
        """See `Device`; what a GPU's driver takes is an allowance, not yet a measurement."""
        return {"host": RUNTIME_BYTES, **({"device": DRIVER_BYTES} if self.provider.pool == "device" else {})}

    @cached_property
    def name(self) -> str:
        """The processor, and which of the instructions it has that integer kernels differ by; or the provider."""
        if self.provider.processor:
            return processor_name()
        return f"{self.provider.name} of ONNX Runtime {import_onnxruntime().__version__}"

    def close(self) -> None:
        """Nothing is open."""


class OrtRunner:
    """Runs `<component>/model.onnx` of an engine folder."""

    _shared_arena = False
    """Whether its sessions have one arena of the process together."""

    def __init__(self, folder: Path, name: str, entry: ComponentEntry, device: OrtDevice) -> None:
        self.name = name
        self.spec = entry.spec
        self.device = device
        self._folder = folder
        self._entry = entry
        self._session: Any = None

    @property
    def ranges(self) -> Mapping[str, Range]:
        """It takes every size."""
        return {}

    @property
    def loaded(self) -> bool:
        """True between `load` and `release`."""
        return self._session is not None

    @property
    def rows(self) -> int:
        """One on a processor, both sides of guidance elsewhere.

        A quantized U-Net takes its activation ranges from all rows together, so only alone is a picture the same in
        every batch; it also keeps the working memory at that of one row, and a processor gains nothing from more.
        """
        return 1 if self.device.provider.processor else 2

    @property
    def threads(self) -> int:
        """As many as the device has, but no more than those with which sums come out the same as with one."""
        most = self._entry.exact_threads
        return self.device.threads if most is None else min(self.device.threads, most)

    def footprint(self, sizes: Sizes) -> Footprint:
        """See `Runner`; what a U-Net's arena has grown to stays until it is released, others give theirs back."""
        role, activation = self.spec.role, self._entry.activation
        if self.device.provider.pool == "device":
            return self._on_device(sizes)
        alive = activation.bytes_at(sizes.pixels, batch=sizes.rows, tokens=sizes.tokens, steps=sizes.steps)
        working = arena_bytes(2 * alive if self._half else alive)
        if role is not Role.CONDITIONER:
            working += int(DEQUANTIZED_AHEAD * activation.dequantized_bytes)
        retained = working if role is Role.UNET else 0
        return Footprint(pool="host", weights=self._weights(), working=working, retained=retained)

    def _weights(self) -> int:
        """Bytes from load to release."""
        if self._half:
            overhead = HALF_WEIGHTS.get(self.spec.role, OTHER_HALF_WEIGHTS)
        else:
            overhead = WEIGHT_OVERHEAD.get(self.spec.role, OTHER_WEIGHT_OVERHEAD)
        weights = int(overhead * self._entry.weight_bytes)
        if adds_in_16_bits():
            weights += int(UNSIGNED_COPIES * self._entry.int8_bytes)
        return weights

    def streamed(self, sizes: Sizes) -> Footprint | None:
        """See `Streams`. All of it is taken by a call: each has its own segments."""
        streaming = self._entry.streaming
        if streaming is None or not self.device.provider.processor:
            return None
        alive, carried = (
            model.bytes_at(sizes.pixels, batch=sizes.rows, tokens=sizes.tokens, steps=sizes.steps)
            for model in (streaming.activation, streaming.carried)
        )
        weights = int(OTHER_WEIGHT_OVERHEAD * bytes_of(streaming.segments, together=2 if self._packs else 1))
        if adds_in_16_bits():
            share = self._entry.int8_bytes / self._entry.weight_bytes
            weights += int(UNSIGNED_COPIES * share * bytes_of(streaming.segments, together=2))
        # An arena that serves one run has not touched what it grew by too much.
        working = STREAMED_BESIDE + weights + int(ARENA_GAPS * alive) + carried
        return Footprint(pool="host", weights=0, working=working)

    def load(self) -> None:
        """Check every file's hash, then create the session. Raises `IntegrityError` or `IncompatibleError`."""
        self._load(self._open)

    def load_streamed(self) -> None:
        """See `Streams`; raises as `load` does."""
        self._load(self._open_segments)

    def _load(self, make: Callable[[], Any]) -> None:
        if self.loaded:
            return
        import_onnxruntime()
        # What earlier components' arrays leave behind is freed by now, but not yet given back.
        trim_heap()
        self._session = make()

    def _open(self) -> Any:
        """What `load` makes."""
        session = self._open_one(checked_file(self._folder, self._entry, MODEL_FILE))
        check_edge(self.name, session, self.spec)
        return session

    def _open_segments(self) -> Any:
        """What runs like the whole, one segment after another."""
        streaming = self._entry.streaming
        assert streaming is not None, "the plan asks `streamed` first"
        model = checked_file(self._folder, self._entry, MODEL_FILE)
        int8 = self._entry.int8_bytes > 0
        open = partial(open_session, threads=self.threads, patterns=False, int8=int8, packed=self._packs)
        data = model.with_name(DATA_FILE)
        return self._told(model, lambda: Segments(self.name, self.spec, data, streaming.segments, open))

    def _open_one(self, model: Path) -> Any:
        """A session of a file whose hash has matched."""
        patterns = not self._shrinks
        if not self.device.provider.processor:
            provider = self.device.provider
            return self._told(model, lambda: start_session(provider, model, self.threads, patterns=patterns))
        shared, int8 = self._shared_arena, self._entry.int8_bytes > 0
        return self._told(model, lambda: open_session(model, self.threads, patterns=patterns, shared=shared, int8=int8))

    def _told(self, model: Path, make: Callable[[], Any]) -> Any:
        """What `make` gives; its errors are told as ours."""
        try:
            return make()
        except PocketXLError:
            raise
        except Exception as error:
            if not (self.device.provider.processor or lacks_memory(error)):
                raise cannot_start(self.device.provider, str(error)) from error
            raise load_error(error, self.name, model, self._entry.weight_bytes / 1e9, self._place) from error

    def release(self) -> None:
        """Drop the session and give its memory back to the system."""
        if self.loaded:
            self._session = None
            trim_heap()

    def leave_behind(self) -> None:
        """Forget the session of the process that this one was forked from; its pages stay shared with that one.

        Raises `IncompatibleError` where it is on a GPU, whose driver does not survive a fork.
        """
        if not self.device.provider.processor:
            raise IncompatibleError(
                f"{self.name} was loaded before this process was forked, and a GPU cannot be used across a fork; "
                "load the pipeline in the child, or fork before the first picture"
            )
        _LEFT_BEHIND.append(self._session)
        self._session = None

    def hold(self, inputs: Values) -> Held:
        """The arrays themselves, laid out as ONNX Runtime reads them; copies where the provider has its own memory."""
        if memory := self.device.provider.memory:
            self.load()  # which brings the provider's library, and with it the memory
            try:
                return BoundHeld({name: BoundArray(np.asarray(value), memory) for name, value in inputs.items()})
            except Exception as error:
                raise run_error(error, self.name, self._place) from error
        return HostHeld({name: np.ascontiguousarray(value) for name, value in inputs.items()})

    def __call__(self, inputs: Values, held: Held | None = None, *, keep: Collection[str] = ()) -> dict[str, Value]:
        """Run once; see `Runner`. Every output is on the host, so `keep` changes nothing.

        One that stayed in a GPU's memory would keep its session's memory there, and what is held is copied only once.
        """
        feeds = {name: np.ascontiguousarray(value) for name, value in inputs.items()}
        bound = held.arrays if isinstance(held, BoundHeld) else {}
        if isinstance(held, HostHeld):
            feeds |= held.inputs
        check_inputs(self.name, self.spec, {**feeds, **bound})
        self.load()
        session, outputs = self._session, [t.name for t in self.spec.outputs]
        options = run_options(import_onnxruntime(), shrink=self.device.provider.arenas if self._shrinks else "")

        def work() -> list[np.ndarray]:
            if bound:
                return run_bound(session, feeds, bound, outputs, options)
            values: list[np.ndarray] = session.run(outputs, feeds, options)
            return values

        try:
            values = run_interruptibly(work, partial(setattr, options, "terminate", True))
            # Copies: an output lies in the session's arena, and would keep the whole region there after the release.
            return {name: np.array(value) for name, value in zip(outputs, values, strict=True)}
        except Ended:
            raise
        except Exception as error:
            raise run_error(error, self.name, self._place) from error

    def _on_device(self, sizes: Sizes) -> Footprint:
        """From the graph's own sizes; not measured on a GPU."""
        alive = self._entry.activation.bytes_at(sizes.pixels, batch=sizes.rows, tokens=sizes.tokens, steps=sizes.steps)
        working = int(ARENA_GAPS * alive)
        retained = working if self.spec.role is Role.UNET else 0
        return Footprint(pool="device", weights=self._entry.weight_bytes, working=working, retained=retained)

    @property
    def _place(self) -> str:
        return "the GPU" if self.device.provider.pool == "device" else "the machine"

    @property
    def _half(self) -> bool:
        """Whether a processor computes in float32 what is stored in half of it."""
        return HALF in self._entry.formats

    @property
    def _packs(self) -> bool:
        """Whether segments copy their weights for their kernels.

        Integer products are the same without, to the bit. Float ones are not on every processor, and lose more time.
        """
        return self._entry.int8_bytes < PRODUCTS_OF_INT8 * self._entry.weight_bytes

    @property
    def _shrinks(self) -> bool:
        """Whether the arena is given back after each run."""
        return self.spec.role is not Role.UNET


def arena_bytes(alive: int) -> int:
    """What ONNX Runtime's arena grows to for `alive` bytes at once."""
    return int(BESIDE_ARENA * 2 ** ceil(log2(ARENA_GAPS * alive))) if alive else 0
