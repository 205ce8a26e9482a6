"""What `program.json` says must agree with itself and with the files beside it: what a build wrote always does.

Its calls write to the GPU's memory at addresses that follow from it, so nothing behind this trusts a name or a number
that was not looked at here. What depends on a picture's size is looked at when it is known (`calls`).
"""

import re
import reprlib
from collections.abc import Iterable, Iterator
from math import prod

from ...kernels.launch import DTYPES
from ...kernels.sdxl import OPS
from ..errors import IncompatibleError, IntegrityError
from ..folder.described import REBUILD
from .edge_checks import MOST_LENGTH, MOST_RANK, column_faults, edge_faults
from .program import BinarySpec, Layout, Program, WeightSpec, Words

ALIGNMENT = 256
"""Bytes; every weight and value begins at a multiple."""
MOST_SHARED = 1 << 18
"""Bytes of a block's shared memory: more than any GPU has."""
MOST_THREADS = 1024
MOST_HIDDEN = 8
_CAPABILITY = re.compile(r"[1-9]\d{1,2}")


def check(program: Program, where: str) -> None:
    """Raise for the first thing in a program that contradicts another; `where` names the file.

    `IncompatibleError` for an op that this release lacks, else `IntegrityError`.
    """
    for call in program.calls:
        if call.op not in OPS:
            raise IncompatibleError(
                f"{where} calls {reprlib.repr(call.op)}, this release has {', '.join(OPS)}; install the pocketxl that "
                "built the engine, or build it again"
            )
    _raise(_faults(program), where)


def check_files(program: Program, where: str, *, weights: int, kernels: int, words: int = 0) -> None:
    """Hold a program to the bytes of its `weights.bin`, `kernels.bin` and `words.bin`. Raises `IntegrityError`."""
    _raise(_outside(program, weights, kernels, words), where)


def words_of(program: Program) -> Words | None:
    """The table that a program's input of ids is looked up in; None where there is none."""
    return next((edge.words for edge in program.inputs if edge.words is not None), None)


def weight_bytes(spec: WeightSpec) -> int:
    """What a weight takes in `weights.bin`."""
    return prod(spec.shape) * DTYPES[spec.dtype][0]


def _raise(faults: Iterator[str], where: str) -> None:
    if (fault := next(faults, None)) is not None:
        raise IntegrityError(f"{where} contradicts itself: {fault}; {REBUILD}")


def _faults(program: Program) -> Iterator[str]:
    known: set[str] = set()
    if sum(edge.words is not None for edge in program.inputs) > 1:
        yield "two inputs look their words up"
    if any(edge.layout is Layout.END_OF_TEXT for edge in program.outputs) and words_of(program) is None:
        yield "an output is the end of a text, and there is no text"
    for name, weight in program.weights.items():
        yield from _weight(name, weight)
        known.add(name)
    for edge in program.inputs:
        yield from edge_faults("input", edge)
        if edge.vectors is None or not edge.vectors.first:  # of a value whose columns are several inputs' the first one
            yield from _new(known, (value.name for value in edge.values), f"input {reprlib.repr(edge.tensor)}")
    yield from column_faults(program.inputs)
    given = {value.name for edge in program.inputs for value in edge.values}
    made: set[str] = set()
    for i, call in enumerate(program.calls):
        where = f"calls[{i}] ({reprlib.repr(call.layer)})"
        for operand in call.inputs.values():
            if operand.name not in known:
                yield f"{where} reads {reprlib.repr(operand.name)}, which nothing before it makes"
            if not 0 <= operand.offset < MOST_LENGTH:
                yield f"{where} reads {reprlib.repr(operand.name)} from {operand.offset} on"
        yield from _new(known, call.outputs.values(), where)
        made.update(call.outputs.values())
    for edge in program.outputs:
        yield from edge_faults("output", edge)
        for value in edge.values:
            if value.name not in made:
                yield f"output {reprlib.repr(edge.tensor)} is {reprlib.repr(value.name)}, which no call makes"
    for side in (program.inputs, program.outputs):
        if len({edge.tensor for edge in side}) != len(side):
            yield "a tensor at its edge is there twice"
    if given & made:
        yield f"calls overwrite {reprlib.repr(sorted(given & made))}"
    for capability in program.binaries:
        if not _CAPABILITY.fullmatch(capability):
            yield f"binaries are for {reprlib.repr(capability)}, a compute capability like 89 is allowed"
    for whose, name, binary in _every(program):
        for wrong in _binary(binary):
            yield f"{whose}.{reprlib.repr(name)} has {wrong}"


def _every(program: Program) -> Iterator[tuple[str, str, BinarySpec]]:
    """All that is in the kernels' file: where it is named, by what, and it."""
    for capability, binaries in program.binaries.items():
        yield from ((f"binaries.{reprlib.repr(capability)}", name, binary) for name, binary in binaries.items())
    yield from (("portable", name, binary) for name, binary in program.portable.items())


def _binary(binary: BinarySpec) -> Iterator[str]:
    if binary.offset < 0 or binary.size <= 0:
        yield f"{binary.size} bytes from {binary.offset} on"
    if not binary.entry.isidentifier():
        yield f"entry={reprlib.repr(binary.entry)}"
    for name, least, most in (("shared", 0, MOST_SHARED), ("threads", 1, MOST_THREADS), ("hidden", 0, MOST_HIDDEN)):
        if not least <= getattr(binary, name) <= most:
            yield f"{name}={getattr(binary, name)}, {least} to {most} is allowed"


def _weight(name: str, weight: WeightSpec) -> Iterator[str]:
    if weight.dtype not in DTYPES:
        yield f"weight {reprlib.repr(name)} is {reprlib.repr(weight.dtype)}, {', '.join(DTYPES)} are allowed"
    elif not all(0 < length < MOST_LENGTH for length in weight.shape) or len(weight.shape) > MOST_RANK:
        yield f"weight {reprlib.repr(name)} has shape {reprlib.repr(weight.shape)}"
    elif weight.offset < 0 or weight.offset % ALIGNMENT:
        yield f"weight {reprlib.repr(name)} is at {weight.offset}, a multiple of {ALIGNMENT} is allowed"


def _new(known: set[str], names: Iterable[str], where: str) -> Iterator[str]:
    for name in names:
        if name in known:
            yield f"{where} makes {reprlib.repr(name)}, which is there already"
        known.add(name)


def _outside(program: Program, weights: int, kernels: int, words: int) -> Iterator[str]:
    if (table := words_of(program)) is not None and table.size != words:
        yield f"its words are {table.size} bytes, the file has {words}"
    for name, weight in program.weights.items():
        if weight.offset + weight_bytes(weight) > weights:
            yield f"weight {reprlib.repr(name)} ends behind the {weights} bytes of the weights' file"
    for whose, name, binary in _every(program):
        if binary.offset + binary.size > kernels:
            yield f"{whose}.{reprlib.repr(name)} ends behind the {kernels} bytes of the kernels' file"
