"""What a walk over bands takes in memory: the same walk, store and pages, with sizes in place of arrays.

Held to the real ones by tests/engine/bands/test_rehearsal.py.
"""

from collections import deque
from dataclasses import dataclass, field

from .pages import FREE_BYTES, WASTE
from .program import BandProgram, Read, Segment
from .store import is_edge
from .walk import Lanes, bands

FLOAT = 4
# Beside what is read and given, ONNX Runtime's arena, which all segments share and which keeps what it has grown to:
# some bands in floats, the dequantized kernel of a layer, and attention's scores before and after the softmax, which
# find no room among the rest. Fitted to decoders and encoders of 32 to 512 channels at 256 x 256 to 1024 x 1024.
ARENA_BANDS = 4
TAPS = 9
"""Of the kernel of a convolution that reads its neighbours' rows."""
SCORES = 2


def rehearsed_bytes(program: BandProgram, rows: int, columns: int, limit: int, lanes: int = 1) -> int:
    """The most bytes at once for so many latents: pages, the arena, and the output as far as it is begun.

    `limit`: of a picture's values that are kept in memory; `lanes`: how many bands are computed side by side. What goes
    in is the caller's.
    """
    return _Rehearsal(program, rows, columns, limit, lanes).most()


@dataclass(eq=False)
class _Pages:
    """See `pages.Pages`."""

    waiting: list[int] = field(default_factory=list)
    bytes: int = 0
    """Of all that is out or waits."""

    def take(self, size: int) -> int:
        for index, whole in enumerate(self.waiting):
            if size <= whole <= WASTE * size:
                return self.waiting.pop(index)
        self.bytes += size
        return size

    def give(self, whole: int) -> None:
        self.waiting.append(whole)
        while sum(self.waiting) > FREE_BYTES:
            self.drop(self.waiting.pop(0))

    def drop(self, whole: int) -> None:
        self.bytes -= whole


@dataclass(eq=False)
class _Kept:
    """Bands of one value from the top, all but the last equally high; `freed` of them are gone."""

    height: int
    row_bytes: int
    pages: list[int] = field(default_factory=list)
    """Of each band; 0 for one in the file, or the caller's."""
    sizes: list[int] = field(default_factory=list)
    """Of each band in memory, else 0."""
    freed: int = 0


class _Rehearsal:
    def __init__(self, program: BandProgram, rows: int, columns: int, limit: int, lanes: int) -> None:
        self._program, self._rows, self._columns, self._limit, self._lanes = program, rows, columns, limit, lanes
        self._pages = _Pages()
        self._values: dict[str, _Kept] = {}
        self._scratch: dict[tuple[str, int], int] = {}
        self._whole: dict[str, int] = {}
        self._held = 0
        self._arena = self._scores = 0

    def most(self) -> int:
        program, last = self._program, self._program.last_reader()
        given = self._value(program.input, self._rows * program.values[program.input].scale)
        self._put(given, 0, given.height * given.row_bytes)
        found = 0
        for index, segment in enumerate(program.segments):
            done = [read for read in segment.reads if last[read.value] == index]
            found = max(found, self._segment(segment, done))
            for read in done:
                self._free(read.value)
        return found

    def _segment(self, segment: Segment, done: list[Read]) -> int:
        program, base = self._program, self._program.scale(segment)
        value, found = program.values[segment.value], 0
        total, factor, ends = self._rows * base, value.scale // base, segment.value == program.output
        every = list(bands(program, segment, self._rows, self._columns))
        kept = self._value(segment.value, every[0][1] * factor)
        if value.tokens:
            self._whole[segment.value] = self._pages.take(kept.row_bytes * self._rows * value.scale)
            self._held += self._whole[segment.value]
        bands_bytes, scores = (min(self._lanes, len(every)) * size for size in self._call(segment, every[0][1]))
        self._arena, self._scores = max(self._arena, bands_bytes), max(self._scores, scores)
        under_way: deque[tuple[int, int, int]] = deque()

        def finish() -> None:
            below, size, page = under_way.popleft()
            for read in done:
                if below < total:
                    self._free(read.value, below * program.values[read.value].scale // base - read.above)
            if ends:
                self._pages.drop(page)
            elif not value.tokens:
                self._put(kept, page, size)

        turns = Lanes(number=self._lanes).under_way
        for index, (first, height) in enumerate(every):
            below, turn = first + height, index % turns
            while len(under_way) >= (1 if ends and below == total else turns):
                finish()
            for read in segment.reads:
                scale = program.values[read.value].scale // base
                self._read(read.value, first * scale - read.above, height * scale + read.above + read.halo, turn)
            size = height * factor * kept.row_bytes
            under_way.append((below, size, 0 if value.tokens else self._pages.take(size)))
            made = below * factor * kept.row_bytes if ends else 0
            found = max(found, self._pages.bytes + self._arena + self._scores + made)
        while under_way:
            finish()
        return found

    def _value(self, name: str, height: int) -> _Kept:
        value = self._program.values[name]
        made = _Kept(height=height, row_bytes=value.pixel_bytes * value.scale * self._columns)
        self._values[name] = made
        return made

    def _put(self, kept: _Kept, page: int, size: int) -> None:
        fits = self._held + size <= self._limit
        if not fits and page:
            self._pages.give(page)
        kept.pages.append(page if fits else 0)
        kept.sizes.append(size if fits else 0)
        self._held += size if fits else 0

    def _read(self, name: str, first: int, rows: int, turn: int) -> None:
        value, kept = self._program.values[name], self._values[name]
        if value.tokens:
            return
        start, end = max(0, first) // kept.height, min(len(kept.pages) - 1, (first + rows - 1) // kept.height)
        last = end == len(kept.pages) - 1
        high = value.scale * self._rows - end * kept.height if last else kept.height
        if kept.sizes[start] and start == end and (first, rows) == (start * kept.height, high):
            return
        self._room((name, turn), rows * kept.row_bytes)
        for index in range(start, end + 1):
            # From the file: a whole band's channels at once, or one after another.
            if not kept.sizes[index] and not self._program.channels_last:
                low = max(first, index * kept.height)
                part = min(first + rows, (index + 1) * kept.height, value.scale * self._rows) - low
                own = min(kept.height, value.scale * self._rows - index * kept.height)
                together = part == own or is_edge(own, low - index * kept.height, part)
                self._room((value.stored, 0), part * kept.row_bytes // (1 if together else value.channels))

    def _room(self, key: tuple[str, int], size: int) -> None:
        if self._scratch.get(key, 0) < size:
            taken = self._pages.take(size)
            self._pages.drop(self._scratch.get(key, 0))
            self._scratch[key] = taken

    def _free(self, name: str, before: int | None = None) -> None:
        kept = self._values[name]
        end = len(kept.pages) if before is None else min(len(kept.pages), max(0, before) // kept.height)
        for index in range(kept.freed, end):
            self._held -= kept.sizes[index]
            if kept.pages[index]:
                self._pages.give(kept.pages[index])
        kept.freed = max(kept.freed, end)
        if before is None:
            for key in [key for key in self._scratch if key[0] == name]:
                self._pages.give(self._scratch.pop(key))
            if name in self._whole:
                self._held -= self._whole[name]
                self._pages.give(self._whole.pop(name))

    def _call(self, segment: Segment, height: int) -> tuple[int, int]:
        """What the largest band's call has in the arena: bands and a kernel, and scores."""
        program, base = self._program, self._program.scale(segment)
        out = program.values[segment.value]
        widest, kernel, scores = height * (out.scale // base) * out.scale * out.channels, 0, 0
        for read in segment.reads:
            value = program.values[read.value]
            if value.tokens:
                scores = height * base * self._columns * value.scale**2 * self._rows * self._columns
                continue
            rows = height * (value.scale // base) + read.above + read.halo
            widest = max(widest, rows * value.scale * value.channels)
            if read.halo:
                kernel = TAPS * value.channels * out.channels
        return FLOAT * (ARENA_BANDS * widest * self._columns + kernel), FLOAT * SCORES * scores
