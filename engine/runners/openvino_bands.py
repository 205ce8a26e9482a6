"""Components that are run a band of rows at a time, on OpenVINO: one model a segment.

What lies between segments is the walk's (`engine.bands`), channels last, as the models' convolutions want them; a model
writes a band's value straight to where it stays. Bands are computed side by side, as on ONNX Runtime (`ort_bands`).
"""

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import Any

import numpy as np

from ..bands.edge import latent_columns, parted, read_program
from ..bands.program import BandProgram
from ..bands.read import BANDS_FILE
from ..bands.sizes import STORE_BYTES, working_bytes
from ..bands.store import BandStore
from ..bands.walk import Band, Lanes, Sums, walk
from ..ending import Ended
from ..errors import IntegrityError
from ..folder.described import REBUILD
from ..folder.manifest import checked_file
from .base import Footprint, Held, Sizes, Value, Values
from .interruptible import run_interruptibly
from .openvino import WEIGHT_COPIES, OpenVinoDevice, OpenVinoRunner
from .openvino_segments import InTurn, OpenVinoSegments
from .ort_session import trim_heap

__all__ = ["OpenVinoBandsRunner", "OpenVinoDevice"]

MOST_LANES = 2
"""Bands side by side: each has its inputs and its working memory."""


class OpenVinoBandsRunner(OpenVinoRunner):
    """Runs `bands.json` of a component and the segments that it names."""

    @cached_property
    def program(self) -> BandProgram:
        """Its segments. Raises `IntegrityError` where they do not fit what `engine.json` says, or another library's."""
        program = read_program(self._folder, self.name, self._entry)
        if not program.channels_last:
            raise IntegrityError(
                f"{self.name}: {BANDS_FILE} is for ONNX Runtime, engine.json names OpenVINO; {REBUILD}"
            )
        return program

    @property
    def lanes(self) -> int:
        """How many bands are computed side by side."""
        return min(self.device.threads, MOST_LANES)

    def footprint(self, sizes: Sizes) -> Footprint:
        """See `Runner`; the models stay from load to release, a picture's values lie in memory up to a limit."""
        working = working_bytes(self.program, sizes.pixels, lanes=self.lanes)
        return Footprint(pool="host", weights=int(WEIGHT_COPIES * self._entry.weight_bytes), working=working)

    def _open(self) -> Any:
        return OpenVinoSegments(
            self.name,
            self.program,
            {one.value: checked_file(self._folder, self._entry, one.file) for one in self.program.segments},
            threads=self.device.threads,
            lanes=self.lanes,
            exact=self._exact,
        )

    def __call__(self, inputs: Values, held: Held | None = None, *, keep: Collection[str] = ()) -> dict[str, Value]:
        """Run once, row after row; see `Runner`. Outputs are on the host, so `keep` changes nothing."""
        feeds, program = self._feeds(inputs, held), self.program
        given = feeds[self.spec.inputs[0].name]
        columns = latent_columns(self.name, program, given.shape)
        call = _Call(self._session, given, columns, self.lanes)
        try:
            return {**parted(run_interruptibly(call.run, call.stop), self.spec)}
        finally:
            trim_heap()


class _Call:
    """One call, which may be ended from another thread."""

    def __init__(self, segments: OpenVinoSegments, given: np.ndarray, columns: int, lanes: int) -> None:
        self._segments, self._given, self._columns, self._lanes = segments, given, columns, lanes
        self._stopped = False

    def stop(self) -> None:
        """Make `run` end before the next band."""
        self._stopped = True

    def run(self) -> np.ndarray:
        """The output, row after row. Raises `Ended` if it was stopped meanwhile."""
        program = self._segments.program
        rows = self._given.shape[2] // program.values[program.input].scale
        with ThreadPoolExecutor(self._lanes, "pocketxl") as side_by_side, ThreadPoolExecutor(1, "pocketxl") as ahead:
            lanes = Lanes(number=self._lanes, executor=side_by_side if self._lanes > 1 else None)
            made = []
            for row in self._given:
                models = InTurn(self._segments, rows, self._columns, ahead)
                store = BandStore(self._columns, STORE_BYTES, channels_last=program.channels_last)
                made.append(walk(program, row[None], partial(self._compute, models), store, lanes))
        return made[0] if len(made) == 1 else np.concatenate(made)

    def _compute(self, models: InTurn, band: Band) -> Sums | None:
        if self._stopped:
            raise Ended
        return models.model(band.segment).run(band)
