"""How much memory a banded component takes for a picture, from its program alone."""

from math import isqrt

from .program import DEVIATION, MEAN, ROWS, BandProgram, Segment
from .rehearsal import rehearsed_bytes
from .walk import bands

STORE_BYTES = 512 << 20
"""Of a picture's values that are kept in memory; what is beyond goes through a temporary file."""


def working_bytes(program: BandProgram, pixels: int, *, limit: int = STORE_BYTES, lanes: int = 1) -> int:
    """The most bytes at once for a picture of so many pixels: values, the bands under way, and the output.

    A picture that is not square has bands of about the same size, and the same values.
    """
    side = max(1, isqrt(max(1, pixels)) // program.picture)
    return rehearsed_bytes(program, side, side, limit, lanes)


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
        high = height * value.scale // base + read.above + read.halo
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
