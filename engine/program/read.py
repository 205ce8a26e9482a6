"""`program.json` ↔ `Program`. Its hash is in `engine.json`; here it is held to its declared types and to itself."""

import json
from pathlib import Path
from typing import Any

from ..folder.described import parsed, read_text
from ..folder.schema import decode, encode
from .checks import check
from .program import FORMAT, Program

PROGRAM_FILE = "program.json"
WEIGHTS_FILE = "weights.bin"
KERNELS_FILE = "kernels.bin"
MOST_BYTES = 1 << 26
"""Of `program.json`; that of SDXL's base has a megabyte."""


def to_json(program: Program) -> str:
    """The text of `program.json`: equal programs have equal texts."""
    return as_text(encode(program))


def as_text(content: Any) -> str:
    """JSON that is the same for equal content."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False) + "\n"


def from_json(text: str, where: str = PROGRAM_FILE) -> Program:
    """Inverse of `to_json`; `where` names the file in messages.

    Raises `IncompatibleError` for another format or an op that this release lacks, `IntegrityError` for text that no
    build has written.
    """
    program = decode(Program, parsed(text, where, "a program", format=FORMAT), where)
    check(program, where)
    return program


def read_program(path: Path) -> Program:
    """The program of a component, from the file whose hash has matched. Raises as `from_json`."""
    return from_json(read_text(path, "a program", most=MOST_BYTES), str(path))
