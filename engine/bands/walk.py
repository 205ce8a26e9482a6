"""The order in which segments run over bands, whatever runs them.

A segment is run over all bands of the picture before the next one begins, since that one's group norm is of the whole
picture. How high bands are follows from the picture's size alone, never from threads or memory, so that the same
picture comes about everywhere. Several bands may be computed side by side; what comes of them is taken in order.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from math import ceil, prod
from typing import Any, Protocol

import numpy as np

from .norms import Statistics
from .program import DEVIATION, MEAN, ROWS, BandProgram, BandValue, Read, Segment

Sums = tuple[np.ndarray, np.ndarray]
"""Of a band and each channel `[channels]`: the mean, and the mean squared deviation from it."""


class Store(Protocol):
    """Where values lie; its arrays have a `shape`, and numpy can fetch them. See `store.BandStore`."""

    def begin(self, name: str, value: BandValue, rows: int) -> None:
        """A value of so many rows, which come in order from the top."""

    def room(self, name: str, first: int, rows: int) -> Any:
        """An array for rows of the value, to be filled and given to `put`."""

    def put(self, name: str, first: int, array: Any) -> None:
        """Keep the rows from `first`, the next ones; the array is the store's from now on."""

    def read(self, name: str, first: int, rows: int, turn: int = 0) -> Any:
        """Rows from `first` on, those outside the picture full of what stands for 0; a whole value's are all.

        Valid until rows of the value are read in the same turn again.
        """

    def free(self, name: str, before: int | None = None) -> None:
        """Forget the rows above `before`, or the whole value."""

    def close(self) -> None:
        """Forget everything."""


@dataclass(frozen=True, kw_only=True)
class Band:
    """One call of a segment."""

    segment: Segment
    inputs: Mapping[str, Any]
    """By the graph's names: the store's arrays, and numpy's beside them."""
    output: Any
    """Where its value is to lie, an array of the store's."""
    channels: int
    """Of the output."""
    last: bool
    """Whether the segment has no other band below."""


@dataclass(frozen=True, kw_only=True)
class Lanes:
    """How many bands are computed side by side, and by whom: by the caller itself if it is one."""

    number: int = 1
    executor: Executor | None = None

    @property
    def under_way(self) -> int:
        """Bands at most that have been read and not yet kept: the next one waits, so that nobody waits for it."""
        return 1 if self.number == 1 else self.number + 1

    def start(self, run: "Run", band: Band) -> "Future[Sums | None]":
        """What `run` will have returned or raised; bands begin in the order that they are given in."""
        if self.number > 1 and self.executor is not None:
            return self.executor.submit(run, band)
        done: Future[Sums | None] = Future()
        done.set_result(run(band))
        return done


ONE_LANE = Lanes()
Run = Callable[[Band], Sums | None]


def walk(
    program: BandProgram,
    given: np.ndarray,
    run: Run,
    store: Store,
    lanes: Lanes = ONE_LANE,
) -> np.ndarray:
    """`given [1, channels, s · h, s · w]` → the component's output `[1, channels, t · h, t · w]`, by their scales.

    `run` fills a band's output, and returns its sums where the value has a norm; `lanes` call it. `store` is used by
    the caller's thread only, and closed afterwards. Raises what it and `run` raise.
    """
    value = program.values[program.input]
    rows, columns = (side // value.scale for side in given.shape[2:])
    steps = _Walk(program, store, rows, columns, run, lanes)
    try:
        store.begin(program.input, value, given.shape[2])
        store.put(program.input, 0, given)
        return steps.result()
    finally:
        steps.settle()
        store.close()


def bands(program: BandProgram, segment: Segment, rows: int, columns: int) -> Iterator[tuple[int, int]]:
    """First row and number of rows of each band, in rows of the segment's coarsest value; all about equally high."""
    base = program.scale(segment)
    names = (segment.value, *(read.value for read in segment.reads if not program.values[read.value].tokens))
    values = [program.values[name] for name in names]
    widest = max(value.channels * value.scale**2 * columns / base for value in values)
    total = rows * base
    height = ceil(total / ceil(total * widest / program.band_numbers))
    tokens = [program.values[read.value] for read in segment.reads if program.values[read.value].tokens]
    if tokens:
        pixels = tokens[0].scale ** 2 * rows * columns
        height = max(1, min(height, program.scores // (pixels * columns * base)))
    for first in range(0, total, height):
        yield first, min(height, total - first)


@dataclass(frozen=True)
class _UnderWay:
    """A band that somebody computes: `height` rows from `first`, of the segment's coarsest value."""

    band: Band
    first: int
    height: int
    sums: "Future[Sums | None]"


class _Walk:
    def __init__(
        self,
        program: BandProgram,
        store: Store,
        rows: int,
        columns: int,
        run: Run,
        lanes: Lanes,
    ) -> None:
        self._program, self._store, self._run, self._lanes = program, store, run, lanes
        self._rows, self._columns = rows, columns
        self._seen: dict[str, Statistics] = {}
        self._under_way: deque[_UnderWay] = deque()

    def settle(self) -> None:
        """Wait for what an error has left under way: it writes to the store's memory."""
        while self._under_way:
            self._under_way.popleft().sums.exception()

    def result(self) -> np.ndarray:
        program, last = self._program, self._program.last_reader()
        out = program.values[program.output]
        found = np.empty((1, out.channels, self._rows * out.scale, self._columns * out.scale), out.dtype)
        for index, segment in enumerate(program.segments):
            done = [read for read in segment.reads if last[read.value] == index]
            for first, output in self._segment(segment, done):
                if segment.value == program.output:
                    found[:, :, first : first + output.shape[2]] = output
                else:
                    self._store.put(segment.value, first, output)
                del output  # its memory is the store's, to be given back when the store says so
            for read in done:
                self._store.free(read.value)
        return found

    def _segment(self, segment: Segment, done: list[Read]) -> Iterator[tuple[int, Any]]:
        """Row and content of each band of the segment's value, from the top."""
        program, base = self._program, self._program.scale(segment)
        value = program.values[segment.value]
        self._store.begin(segment.value, value, self._rows * value.scale)
        norm = self._norm(segment)
        if value.norm:
            self._seen[segment.value] = Statistics(value.channels)
        for index, (first, height) in enumerate(bands(program, segment, self._rows, self._columns)):
            last = first + height == self._rows * base
            # The last of all is computed alone, so that whoever runs it can give back what all have shared.
            alone = last and segment.value == program.output
            while len(self._under_way) >= (1 if alone else self._lanes.under_way):
                yield self._finished(segment, done)
            self._start(segment, norm, first, height, index % self._lanes.under_way)
        while self._under_way:
            yield self._finished(segment, done)

    def _start(self, segment: Segment, norm: dict[str, np.ndarray], first: int, height: int, turn: int) -> None:
        program, base = self._program, self._program.scale(segment)
        value = program.values[segment.value]
        factor = value.scale // base
        inputs = {read.value: self._read(read, base, first, height, turn) for read in segment.reads}
        band = Band(
            segment=segment, inputs={**inputs, **norm, **self._inside(segment, base, first, height)},
            output=self._store.room(segment.value, first * factor, height * factor),
            channels=value.channels, last=first + height == self._rows * base,
        )  # fmt: skip
        self._under_way.append(_UnderWay(band, first, height, self._lanes.start(self._run, band)))

    def _finished(self, segment: Segment, done: list[Read]) -> tuple[int, Any]:
        """Row and content of the oldest band that is under way; what no later one reads is forgotten."""
        program, base = self._program, self._program.scale(segment)
        of, below = self._under_way[0], self._under_way[0].first + self._under_way[0].height
        sums, output = of.sums.result(), of.band.output
        self._under_way.popleft()
        if sums is not None:
            self._seen[segment.value].add(prod(output.shape) // of.band.channels, *sums)
        if not of.band.last:
            for read in done:
                scale = program.values[read.value].scale // base
                self._store.free(read.value, below * scale - read.above)
        return of.first * (program.values[segment.value].scale // base), output

    def _read(self, read: Read, base: int, first: int, height: int, turn: int) -> Any:
        factor = self._program.values[read.value].scale // base
        return self._store.read(read.value, first * factor - read.above, height * factor + read.above + read.halo, turn)

    def _norm(self, segment: Segment) -> dict[str, np.ndarray]:
        if not segment.norm:
            return {}
        norm = self._program.values[segment.norm].norm
        assert norm is not None  # `read` has looked
        mean, deviation = self._seen[segment.norm].of(norm)
        return {MEAN: mean, DEVIATION: deviation}

    def _inside(self, segment: Segment, base: int, first: int, height: int) -> dict[str, np.ndarray]:
        """1 for the rows of what the norm is applied to that are in the picture, where some may not be."""
        read = next((read for read in segment.reads if read.value == segment.norm and read.halo), None)
        if read is None:
            return {}
        scale = self._program.values[read.value].scale
        at = np.arange(first * scale // base - read.above, (first + height) * scale // base + read.halo)
        return {ROWS: ((at >= 0) & (at < self._rows * scale)).astype(np.float32).reshape(1, 1, -1, 1)}
