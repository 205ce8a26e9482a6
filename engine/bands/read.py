"""`bands.json` ↔ `BandProgram`. Its hash is in `engine.json`; here it is held to its declared types and to itself."""

import json
import math
import reprlib
from collections.abc import Iterator
from pathlib import Path

from ..errors import IntegrityError
from ..folder.described import REBUILD, parsed, read_text
from ..folder.schema import decode, encode
from .program import FORMAT, ITEM_BYTES, BandProgram, BandValue, Segment

BANDS_FILE = "bands.json"
MOST_BYTES = 1 << 20
"""Of `bands.json`; that of SDXL has a hundredth of it."""
MOST_CHANNELS = 1 << 16
MOST_SCALE = 64
MOST_NUMBERS = 1 << 28


def to_json(program: BandProgram) -> str:
    """The text of `bands.json`: equal programs have equal texts."""
    return json.dumps(encode(program), indent=1, sort_keys=True, allow_nan=False) + "\n"


def from_json(text: str, where: str = BANDS_FILE) -> BandProgram:
    """Inverse of `to_json`; `where` names the file in messages.

    Raises `IncompatibleError` for another format, `IntegrityError` for text that no build has written.
    """
    program = decode(BandProgram, parsed(text, where, "segments", format=FORMAT), where)
    fault = next(_faults(program), None)
    if fault is not None:
        raise IntegrityError(f"{where} contradicts itself: {fault}; {REBUILD}")
    return program


def read_bands(path: Path) -> BandProgram:
    """The segments of a component, from the file whose hash has matched. Raises as `from_json`."""
    return from_json(read_text(path, "segments", most=MOST_BYTES), str(path))


def _faults(program: BandProgram) -> Iterator[str]:
    if not 1 <= program.band_numbers <= MOST_NUMBERS:
        yield f"band_numbers is {program.band_numbers}, 1 to {MOST_NUMBERS} is allowed"
    if not 1 <= program.scores <= MOST_NUMBERS:
        yield f"scores is {program.scores}, 1 to {MOST_NUMBERS} is allowed"
    for name, value in program.values.items():
        yield from (f"values.{name}: {fault}" for fault in _value(value))
    known = {program.input}
    if not known | {program.output} <= set(program.values):
        yield "its input or output is none of the values"
        return
    for index, segment in enumerate(program.segments):
        yield from (f"segments[{index}] {fault}" for fault in _segment(program, segment, known))
        known.add(segment.value)
    if program.output not in known - {program.input}:
        yield f"no segment gives {program.output}"
    if unused := sorted(set(program.values) - known):
        yield f"no segment gives {unused[0]}"


def _value(value: BandValue) -> Iterator[str]:
    if value.dtype not in ITEM_BYTES:
        yield f"dtype is {reprlib.repr(value.dtype)}, {' or '.join(ITEM_BYTES)} is allowed"
    if not (1 <= value.channels <= MOST_CHANNELS and 1 <= value.scale <= MOST_SCALE):
        yield f"{value.channels} channels at scale {value.scale}, up to {MOST_CHANNELS} and {MOST_SCALE} are allowed"
    if not 0 <= value.zero <= (255 if value.dtype == "uint8" else 0):
        yield f"zero is {value.zero}"
    norm = value.norm
    if norm and (norm.groups < 1 or value.channels % norm.groups or not 0 < norm.epsilon < math.inf):
        yield f"a norm of {norm.groups} groups over {value.channels} channels, epsilon {norm.epsilon}"


def _segment(program: BandProgram, segment: Segment, known: set[str]) -> Iterator[str]:
    read = [r.value for r in segment.reads]
    if segment.value in known or segment.value not in program.values:
        yield f"gives {reprlib.repr(segment.value)}, which is there already or no value"
        return
    if not read or len(set(read)) != len(read) or not set(read) <= known:
        yield f"reads {reprlib.repr(read)}, each once of those that are there is allowed"
        return
    if segment.norm and (segment.norm not in read or program.values[segment.norm].norm is None):
        yield f"applies a norm of {reprlib.repr(segment.norm)}, which has none or is not read"
    base = program.scale(segment)
    for name in (segment.value, *read):
        if program.values[name].scale % base:
            yield f"has {name} at scale {program.values[name].scale}, beside {base}"
    if any(not r.downward <= r.halo <= 1 or (r.halo and program.values[r.value].tokens) for r in segment.reads):
        yield "has a halo other than a row, or one of tokens"
