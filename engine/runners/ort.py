"""Components on ONNX Runtime, by its CPU provider or another."""

from collections.abc import Callable, Collection, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from ..ending import Ended
from ..errors import IncompatibleError, MemoryBudgetError, PocketXLError
from ..folder.manifest import ComponentEntry, checked_file
from ..folder.openings import CachedGraphs, OpenGraph
from ..specs import Role
from .adapted import OfEntry, OpenRunner
from .base import Footprint, Held, HostHeld, Pool, Preparation, Range, Sizes, Value, Values, check_inputs
from .cached import CachedRunner
from .cores import available_cores
from .interruptible import run_interruptibly
from .ort_binding import BoundArray, BoundHeld, run_bound
from .ort_memory import footprint_of, packs, streamed_footprint
from .ort_prepared import ROLES, kept_of, prepare
from .ort_providers import CPU, Provider
from .ort_segments import Segments
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
from .prepared_files import remove_prepared
from .processor import processor_facts, processor_name

MODEL_FILE = "model.onnx"
DATA_FILE = f"{MODEL_FILE}.data"

# Measured, as `ort_memory` says: the interpreter, numpy, Pillow, tokenizers and ONNX Runtime before the first weight.
RUNTIME_BYTES = 150 << 20
DRIVER_BYTES = 300 << 20

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


class OrtRunner(OfEntry):
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
        self._opened: dict[str, OpenRunner] = {}
        self._cached: dict[str, CachedRunner] = {}

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

    def opened(self, graph: OpenGraph) -> OpenRunner:
        """See `Opens`."""
        from .ort_open import OrtOpenRunner

        return self._opened.setdefault(
            graph.file, OrtOpenRunner(self._folder, self.name, self._entry, self.device, graph)
        )

    def cached(self, graphs: CachedGraphs) -> CachedRunner:
        """See `Caches`."""
        from .ort_cached import OrtCachedRunner

        both = OrtCachedRunner(self._folder, self.name, self._entry, self.device, graphs)
        return self._cached.setdefault(graphs.whole.file, both)

    @property
    def threads(self) -> int:
        """As many as the device has, but no more than those with which sums come out the same as with one."""
        most = self._entry.exact_threads
        return self.device.threads if most is None else min(self.device.threads, most)

    def footprint(self, sizes: Sizes) -> Footprint:
        """See `Runner`; what a U-Net's arena has grown to stays until it is released, others give theirs back."""
        return footprint_of(self._entry, sizes, self.device.provider.pool)

    def streamed(self, sizes: Sizes) -> Footprint | None:
        """See `Streams`. All of it is taken by a call: each has its own segments."""
        if self._entry.streaming is None or not self.device.provider.processor:
            return None
        return streamed_footprint(self._entry, self._entry.streaming, sizes)

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
        """What `load` makes: of what was kept, where there is such."""
        graph = kept_of(self._model, self._entry).find() if self.prepares() else None
        if graph is not None:
            try:
                return self._open_whole(graph, prepared=True)
            except MemoryBudgetError:
                raise
            except PocketXLError:  # the original says what is wrong, or nothing is
                trim_heap()
        return self._open_original()

    def _open_original(self, keep_as: tuple[Path, str] | None = None) -> Any:
        return self._open_whole(checked_file(self._folder, self._entry, MODEL_FILE), keep_as=keep_as)

    def _open_whole(self, model: Path, *, prepared: bool = False, keep_as: tuple[Path, str] | None = None) -> Any:
        session = self._open_one(model, prepared=prepared, keep_as=keep_as)
        check_edge(self.name, session, self.spec)
        return session

    def prepares(self) -> bool:
        """See `Prepares`: a whole graph on the processor, if that is known for what it is."""
        whole = type(self) is OrtRunner and self.device.provider.processor and self.spec.role in ROLES
        return whole and bool(processor_facts())

    def prepare(self) -> Preparation:
        """See `Prepares`; raises as `load` does too."""
        checked_file(self._folder, self._entry, MODEL_FILE)  # hashed once for all starts, so it is no part of a load
        prepared = partial(self._open_whole, prepared=True)
        return prepare(kept_of(self._model, self._entry), self._entry, self._open_original, prepared)

    def forget_prepared(self) -> int:
        """See `Prepares`."""
        return sum(remove_prepared(self._folder / file.path) for file in self._entry.files if file.name == MODEL_FILE)

    @property
    def _model(self) -> Path:
        """The graph's file; not checked."""
        return self._folder / next(file.path for file in self._entry.files if file.name == MODEL_FILE)

    def _open_segments(self) -> Any:
        """What runs like the whole, one segment after another."""
        streaming = self._entry.streaming
        assert streaming is not None, "the plan asks `streamed` first"
        model = checked_file(self._folder, self._entry, MODEL_FILE)
        int8 = self._entry.int8_bytes > 0
        open = partial(open_session, threads=self.threads, patterns=False, int8=int8, packed=packs(self._entry))
        data = model.with_name(DATA_FILE)
        return self._told(model, lambda: Segments(self.name, self.spec, data, streaming.segments, open))

    def _open_one(self, model: Path, *, prepared: bool = False, keep_as: tuple[Path, str] | None = None) -> Any:
        """A session of a file whose hash has matched; for the rest see `open_session`."""
        patterns = not self._shrinks
        if not self.device.provider.processor:
            provider = self.device.provider
            return self._told(model, lambda: start_session(provider, model, self.threads, patterns=patterns))
        shared, int8 = self._shared_arena, self._entry.int8_bytes > 0
        open = partial(open_session, model, self.threads, patterns=patterns, shared=shared, int8=int8)
        return self._told(model, partial(open, prepared=prepared, keep_as=keep_as))

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

    @property
    def _place(self) -> str:
        return "the GPU" if self.device.provider.pool == "device" else "the machine"

    @property
    def _shrinks(self) -> bool:
        """Whether the arena is given back after each run."""
        return self.spec.role is not Role.UNET
