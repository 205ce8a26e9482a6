"""A wide VAE's decoder on OpenVINO: the whole picture at once, or a band of rows at a time, one model a segment.

At once it takes 0.6 to 0.8 of the time at 512 x 512 and 0.7 to 0.9 at 1024 x 1024 where the processor has bfloat16, as
segments are compiled anew for every picture, and as long where it has not. Over bands it takes the memory that ONNX
Runtime's takes (`ort_bands`), so that is how large pictures are made, and others where a budget has no place for the
whole. What lies between segments is the walk's (`engine.bands`), channels last, as the models' convolutions want them,
and in bfloat16 where products are of 8 bits.
"""

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from math import prod

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
from .base import Footprint, Sizes, Value
from .interruptible import run_interruptibly
from .openvino import LEFT_BEHIND, OpenVinoDevice, OpenVinoRunner, weights_in_memory
from .openvino_segments import InTurn, OpenVinoSegments
from .ort import DATA_FILE
from .ort_session import trim_heap

__all__ = ["OpenVinoBandsRunner", "OpenVinoDevice"]

MOST_LANES = 2
"""Bands side by side: each has its inputs and its working memory."""
MOST_WHOLE = 3 << 19
"""Pixels of the largest picture that is made at once: 1.5 million in bfloat16, for which SDXL's decoder takes 2 GB. In
float32, of which it takes twice as much, half of that; at 1024 x 1024 bands are as fast."""
# What a call takes of what is alive at once in float32: OpenVINO joins what is done to single numbers. Measured on
# SDXL's decoder, at 512 x 512 and 1024 x 1024: 0.40 and 0.41, 0.82 and 0.82.
IN_BFLOAT16, IN_FLOAT32 = 0.43, 0.86


class OpenVinoBandsRunner(OpenVinoRunner):
    """Runs `model.onnx`, or `bands.json` and the segments that it names."""

    _over_bands = False
    _segments: OpenVinoSegments | None = None

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
        """See `Runner`."""
        if sizes.pixels > self._most_whole:
            return self._banded(sizes)
        alive = self._entry.activation.bytes_at(sizes.pixels, batch=sizes.rows, tokens=sizes.tokens, steps=sizes.steps)
        weights = weights_in_memory(self._bytes_of({DATA_FILE}))
        working = int((IN_BFLOAT16 if self._in_bfloat16 else IN_FLOAT32) * alive)
        return Footprint(pool="host", weights=weights, working=working, retained=working)

    def streamed(self, sizes: Sizes) -> Footprint | None:
        """See `Streams`: over bands."""
        return None if sizes.pixels > self._most_whole else self._banded(sizes)

    def load_streamed(self) -> None:
        """See `Streams`; raises as `load` does."""
        self.load()
        self._over_bands = True

    def release(self) -> None:
        """Drop the models and give their memory back to the system."""
        self._segments, self._over_bands = None, False
        super().release()

    def leave_behind(self) -> None:
        """See `OpenVinoRunner`."""
        super().leave_behind()
        LEFT_BEHIND.append(self._segments)
        self._segments, self._over_bands = None, False

    def _run(self, feeds: dict[str, np.ndarray]) -> dict[str, Value]:
        """Row after row where it runs over bands."""
        given = feeds[self.spec.inputs[0].name]
        over_bands = self._over_bands or self._pixels(given) > self._most_whole
        return self._walked(given) if over_bands else super()._run(feeds)

    @property
    def _most_whole(self) -> int:
        return MOST_WHOLE if self._in_bfloat16 else MOST_WHOLE // 2

    def _pixels(self, given: np.ndarray) -> int:
        """Of the picture that comes of it."""
        values = self.program.values
        scale = values[self.program.output].scale // values[self.program.input].scale
        return prod(given.shape[2:]) * scale**2

    def _walked(self, given: np.ndarray) -> dict[str, Value]:
        columns = latent_columns(self.name, self.program, given.shape)
        if self._segments is None:
            files = {one.value: checked_file(self._folder, self._entry, one.file) for one in self.program.segments}
            self._segments = OpenVinoSegments(
                self.name, self.program, files, threads=self.device.threads, lanes=self.lanes, exact=self._exact
            )
        call = _Call(self._segments, given, columns, self.lanes)
        try:
            return {**parted(run_interruptibly(call.run, call.stop), self.spec)}
        finally:
            trim_heap()

    def _banded(self, sizes: Sizes) -> Footprint:
        """What it takes over bands: a picture's values lie in memory up to a limit."""
        working = working_bytes(self.program, sizes.pixels, lanes=self.lanes)
        weights = self._bytes_of({segment.file for segment in self.program.segments})
        return Footprint(pool="host", weights=weights, working=working)

    def _bytes_of(self, names: Collection[str]) -> int:
        return sum(file.size for file in self._entry.files if file.name in names)


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
