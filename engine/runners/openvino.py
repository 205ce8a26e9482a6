"""Components on OpenVINO, by its plug-in for processors."""

from collections.abc import Callable, Collection, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from ..ending import Ended
from ..folder.manifest import FILE_NAME, ComponentEntry, checked_file
from .base import Footprint, Held, HostHeld, Pool, Range, Sizes, Value, Values, check_inputs
from .cores import available_cores
from .interruptible import run_interruptibly
from .mapped import GIVES_BACK
from .openvino_session import OpenVinoSession
from .ort import MODEL_FILE
from .ort_providers import FLOAT
from .ort_session import trim_heap
from .processor import multiplies_bfloat16, processor_name

# Measured on SDXL's base U-Net in 8 bits, from 512 x 512 to 1536 x 1536 (benchmarks/results/
# 2026-11-28-openvino-memory-xeon-amx-2-cores.json): the interpreter and all libraries; weights in the order that
# kernels read them in, with the graph; and what a call takes of what is alive at once in float32, in three parts.
RUNTIME_BYTES = 250 << 20
WEIGHT_COPIES = 1.185
IN_BFLOAT16, IN_FLOAT32 = 1.7, 2.8

# Sessions of another process that this one was forked from: their threads are not here, so they cannot even be closed.
LEFT_BEHIND: list[Any] = []


class OpenVinoDevice:
    """The processor, with `threads` inside one operator (None: see `cores`)."""

    room = None
    in_use = None
    concurrent = True

    def __init__(self, *, threads: int | None = None) -> None:
        self.threads = available_cores() if threads is None else threads

    @property
    def overhead(self) -> Mapping[Pool, int]:
        """See `Device`."""
        return {"host": RUNTIME_BYTES}

    @cached_property
    def name(self) -> str:
        """The processor, and which of the instructions it has that integer kernels differ by."""
        return processor_name()

    def close(self) -> None:
        """Nothing is open."""


class OpenVinoRunner:
    """Runs `<component>/model.onnx` of an engine folder."""

    def __init__(self, folder: Path, name: str, entry: ComponentEntry, device: OpenVinoDevice) -> None:
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
    def rows(self) -> int:
        """One: a processor gains nothing from more, and memory stays that of one row."""
        return 1

    @property
    def loaded(self) -> bool:
        """True between `load` and `release`."""
        return self._session is not None

    def footprint(self, sizes: Sizes) -> Footprint:
        """See `Runner`; what a call takes stays until the model is released or compiled for other sizes."""
        alive = self._entry.activation.bytes_at(sizes.pixels, batch=sizes.rows, tokens=sizes.tokens, steps=sizes.steps)
        weights = weights_in_memory(self._entry.weight_bytes)
        working = int((IN_BFLOAT16 if self._in_bfloat16 else IN_FLOAT32) * alive)
        return Footprint(pool="host", weights=weights, working=working, retained=working)

    def load(self) -> None:
        """Check every file's hash; the model is read and compiled by the first call, which knows its sizes.

        Raises `IntegrityError` or `IncompatibleError`.
        """
        if self.loaded:
            return
        # What earlier components' arrays leave behind is freed by now, but not yet given back.
        trim_heap()
        self._session = self._open()

    def _open(self) -> Any:
        model = checked_file(self._folder, self._entry, MODEL_FILE)
        # A folder that is being built has no description yet: nothing must come into it but what the build makes.
        whole = (self._folder / FILE_NAME).is_file()
        return OpenVinoSession(
            self.name,
            self.spec,
            model,
            self.device.threads,
            exact=self._exact,
            digests=[file.sha256 for file in self._entry.files] if whole else None,
        )

    @property
    def _exact(self) -> bool:
        """Whether it is of floats alone, and so asked for to be exact; 8 bits are not spoilt by bfloat16 in between."""
        return set(self._entry.formats) <= {FLOAT}

    @property
    def _in_bfloat16(self) -> bool:
        """Whether what is no product of 8 bits is computed in bfloat16."""
        return multiplies_bfloat16() and not self._exact

    def release(self) -> None:
        """Drop the model and give its memory back to the system."""
        if self.loaded:
            self._session = None
            trim_heap()

    def leave_behind(self) -> None:
        """Forget the session of the process that this one was forked from; its pages stay shared with that one."""
        LEFT_BEHIND.append(self._session)
        self._session = None

    def hold(self, inputs: Values) -> Held:
        """The arrays themselves, laid out as OpenVINO reads them."""
        return HostHeld({name: np.ascontiguousarray(value) for name, value in inputs.items()})

    def __call__(self, inputs: Values, held: Held | None = None, *, keep: Collection[str] = ()) -> dict[str, Value]:
        """Run once; see `Runner`. Every output is on the host, so `keep` changes nothing."""
        feeds = {name: np.ascontiguousarray(value) for name, value in inputs.items()}
        if isinstance(held, HostHeld):
            feeds |= held.inputs
        check_inputs(self.name, self.spec, feeds)
        self.load()
        return self._run(feeds)

    def _run(self, feeds: dict[str, np.ndarray]) -> dict[str, Value]:
        """The outputs for these inputs, which are all there and as they should be."""
        call = _Call(self._session, feeds)
        return run_interruptibly(call.run, call.stop)


def weights_in_memory(file_bytes: int) -> int:
    """What weights of so many bytes take when they are compiled; where the system keeps them, the file's pages too."""
    return int((WEIGHT_COPIES + (not GIVES_BACK)) * file_bytes)


class _Call:
    """One call, which may be ended from another thread."""

    def __init__(self, session: OpenVinoSession, feeds: Mapping[str, np.ndarray]) -> None:
        self._session = session
        self._feeds = feeds
        self._stopped = False
        self._cancel: Callable[[], None] = partial(setattr, self, "_stopped", True)

    def run(self) -> dict[str, Value]:
        """The outputs. Raises `Ended` if it was stopped meanwhile."""
        request = self._session.request({name: array.shape for name, array in self._feeds.items()})
        self._cancel = request.cancel
        if self._stopped:
            raise Ended
        return {**self._session.run(request, self._feeds)}

    def stop(self) -> None:
        """Make `run` end soon, with an error."""
        self._stopped = True
        self._cancel()
