"""Components that are run a band of rows at a time, on ONNX Runtime: one session a segment.

What lies between segments is the walk's (`engine.bands`); a session writes a band's value straight to where it stays.
Much of a band is done by one thread (gathering rows, norms, transposes), so several are computed side by side.
"""

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..bands.edge import latent_columns, parted, read_program
from ..bands.program import SUM_MEAN, SUM_SQUARES, BandProgram
from ..bands.sizes import STORE_BYTES, working_bytes
from ..bands.store import BandStore
from ..bands.walk import Band, Lanes, Sums, walk
from ..ending import Ended
from ..errors import PocketXLError
from ..folder.manifest import ComponentEntry, checked_file
from .base import Footprint, Held, HostHeld, Sizes, Value, Values, check_inputs
from .interruptible import run_interruptibly
from .ort import OrtDevice, OrtRunner
from .ort_memory import weights_of
from .ort_session import import_onnxruntime, run_error, run_options, trim_heap

__all__ = ["BandsRunner", "OrtDevice"]

MOST_LANES = 2
"""Bands side by side: each has its inputs and its working memory."""


class BandsRunner(OrtRunner):
    """Runs `bands.json` of a component and the segments that it names."""

    _shared_arena = True
    _program: BandProgram | None = None

    def __init__(self, folder: Path, name: str, entry: ComponentEntry, device: OrtDevice) -> None:
        super().__init__(folder, name, entry, device)
        self._working: dict[int, int] = {}

    def footprint(self, sizes: Sizes) -> Footprint:
        """See `Runner`; the weights stay from load to release, a picture's values lie in memory up to a limit."""
        if sizes.pixels not in self._working:  # some hundredths of a second for a large picture
            self._working[sizes.pixels] = working_bytes(self.program, sizes.pixels, lanes=self.lanes)
        return Footprint(pool="host", weights=weights_of(self._entry), working=self._working[sizes.pixels])

    @property
    def lanes(self) -> int:
        """How many bands are computed side by side, each by a thread of its own."""
        return min(self.device.threads, MOST_LANES) if self.device.provider.processor else 1

    @property
    def threads(self) -> int:
        """Of a session: whoever calls it is one of them, and the others are shared by all lanes."""
        return max(1, super().threads - self.lanes + 1)

    @property
    def program(self) -> BandProgram:
        """Its segments. Raises `IntegrityError` where they do not fit what `engine.json` says."""
        if self._program is None:
            self._program = read_program(self._folder, self.name, self._entry)
        return self._program

    def _open(self) -> Any:
        """A session for each segment, by its value."""
        sessions = {
            segment.value: self._open_one(checked_file(self._folder, self._entry, segment.file))
            for segment in self.program.segments
        }
        trim_heap()  # of what so many graphs were read into
        return sessions

    def __call__(self, inputs: Values, held: Held | None = None, *, keep: Collection[str] = ()) -> dict[str, Value]:
        """Run once, row after row; see `Runner`. Outputs are on the host, so `keep` changes nothing."""
        feeds = {name: np.ascontiguousarray(value) for name, value in inputs.items()}
        if isinstance(held, HostHeld):
            feeds |= held.inputs
        check_inputs(self.name, self.spec, feeds)
        self.load()
        options = run_options(import_onnxruntime())
        last = run_options(import_onnxruntime(), shrink=self.device.provider.arenas)
        program, (given,) = self.program, self.spec.inputs
        columns = latent_columns(self.name, program, feeds[given.name].shape)
        run = _Run(self._session, options, last, end=program.output)

        def work() -> np.ndarray:
            with ThreadPoolExecutor(self.lanes, "pocketxl") as executor:
                lanes = Lanes(number=self.lanes, executor=executor if self.lanes > 1 else None)
                rows = [walk(program, x[None], run, BandStore(columns, STORE_BYTES), lanes) for x in feeds[given.name]]
            return rows[0] if len(rows) == 1 else np.concatenate(rows)

        try:
            return {**parted(run_interruptibly(work, run.stop), self.spec)}
        except (Ended, PocketXLError):
            raise
        except Exception as error:
            raise run_error(error, self.name, self._place) from error
        finally:
            trim_heap()  # the arena's pieces, which the C library would keep beside what the next call takes


class _Run:
    """Calls sessions; `last`: options of the last call of all, that of `end`, which gives the arena back."""

    def __init__(self, sessions: dict[str, Any], options: Any, last: Any, *, end: str) -> None:
        self._sessions, self._options, self._last, self._end = sessions, options, last, end

    def stop(self) -> None:
        """End the call that runs, and those that follow."""
        for options in (self._options, self._last):
            options.terminate = True

    def __call__(self, band: Band) -> Sums | None:
        session = self._sessions[band.segment.value]
        binding = session.io_binding()
        bind = partial(binding.bind_output, device_type="cpu", device_id=0)
        for name, array in band.inputs.items():
            binding.bind_cpu_input(name, array)
        names = [output.name for output in session.get_outputs()]
        sums = {name: np.empty(band.channels, np.float32) for name in names if name in (SUM_MEAN, SUM_SQUARES)}
        for name, array in {band.segment.value: band.output, **sums}.items():
            bind(name, element_type=array.dtype.type, shape=array.shape, buffer_ptr=array.ctypes.data)
        over = band.last and band.segment.value == self._end
        session.run_with_iobinding(binding, self._last if over else self._options)
        return (sums[SUM_MEAN], sums[SUM_SQUARES]) if sums else None
