"""How much memory a banded component takes for a picture, from its program alone."""

from math import ceil, isqrt

from .pages import FREE_BYTES
from .program import DEVIATION, MEAN, ROWS, BandProgram, Segment
from .walk import bands

STORE_BYTES = 352 << 20
"""Of a picture's values that are kept in memory; what is beyond goes through a temporary file."""
FLOAT = 4
# Tensors as large as the widest of a band that calls take: what is read, given and between, and what ONNX Runtime's
# arena, which all segments share, has beyond that, since its regions double. Of full-size SDXL in float32, in bands of
# 8 MiB, they were 6 at 256 × 256 and 20 at 512 × 512; in int8 and bands of 2 MiB 1 and 9, beside what waits.
BAND_COPIES = 20


def working_bytes(program: BandProgram, pixels: int, *, limit: int = STORE_BYTES) -> int:
    """The most bytes at once for a picture of so many pixels: values, one band's call, and the output.

    A picture that is not square has bands of about the same size, and the same values.
    """
    out = program.values[program.output]
    side = max(1, isqrt(max(1, pixels)) // out.scale)
    stored = stored_bytes(program, side)
    waiting = min(FREE_BYTES, stored)
    return min(limit, stored) + waiting + _one_band(program, side) + out.pixel_bytes * pixels


def band_shapes(program: BandProgram, segment: Segment, rows: int, columns: int) -> dict[str, tuple[int, ...]]:
    """The shapes of what the first band of a segment is given, by the graph's names; no other band has more."""
    base = program.scale(segment)
    _, height = next(iter(bands(program, segment, rows, columns)))
    shapes: dict[str, tuple[int, ...]] = {}
    for read in segment.reads:
        value = program.values[read.value]
        if value.tokens:
            shapes[read.value] = (1, value.scale**2 * rows * columns, value.channels)
            continue
        high = height * value.scale // base + 2 * read.halo
        shapes[read.value] = (1, value.channels, high, value.scale * columns)
        if read.value == segment.norm and read.halo:
            shapes[ROWS] = (1, 1, high, 1)
    if segment.norm:
        shapes |= dict.fromkeys((MEAN, DEVIATION), (program.values[segment.norm].channels,))
    return shapes


def stored_bytes(program: BandProgram, side: int) -> int:
    """The most bytes of values alive at once for `side` × `side` latents."""
    return max(stored_by_segment(program, side))


def stored_by_segment(program: BandProgram, side: int) -> list[int]:
    """The same while each of the segments runs. What a segment reads last shrinks while what it gives grows."""
    last = program.last_reader()
    alive: dict[str, int] = {program.input: 0}
    found = []
    for index, segment in enumerate(program.segments):
        value = program.values[segment.value]
        size = 0 if segment.value == program.output else value.pixel_bytes * (value.scale * side) ** 2
        done = [read.value for read in segment.reads if last[read.value] == index]
        shrinking = sum(alive[name] for name in done if not program.values[name].tokens)
        held = sum(alive.values())
        found.append(max(held, held - shrinking + size))
        alive[segment.value] = size
        for name in done:
            del alive[name]
    return found


def _one_band(program: BandProgram, side: int) -> int:
    found = 0
    for segment in program.segments:
        base = program.scale(segment)
        _, height = next(iter(bands(program, segment, side, side)))
        names = (segment.value, *(read.value for read in segment.reads))
        values = [program.values[name] for name in names if not program.values[name].tokens]
        rows = max(ceil((height + 2) * value.scale / base) * value.scale * value.channels for value in values)
        found = max(found, rows * side * FLOAT)
    return BAND_COPIES * min(found, 2 * FLOAT * program.band_numbers)
