"""`program.json` ↔ `Program`. Its hash is in `engine.json`; here it is held to its declared types and to itself."""

import json
import reprlib
from pathlib import Path

from ..errors import IncompatibleError, IntegrityError
from ..folder.schema import decode, encode
from .checks import check
from .program import FORMAT, Program

PROGRAM_FILE = "program.json"
WEIGHTS_FILE = "weights.bin"
KERNELS_FILE = "kernels.bin"
MOST_BYTES = 1 << 26
"""Of `program.json`; that of SDXL's base has a megabyte."""
_REBUILD = "build the engine again with `pocketxl build`, or copy the folder again"


def to_json(program: Program) -> str:
    """The text of `program.json`: equal programs have equal texts."""
    return json.dumps(encode(program), sort_keys=True, separators=(",", ":"), allow_nan=False) + "\n"


def from_json(text: str, where: str = PROGRAM_FILE) -> Program:
    """Inverse of `to_json`; `where` names the file in messages.

    Raises `IncompatibleError` for another format or an op that this release lacks, `IntegrityError` for text that no
    build has written.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{where} is not the JSON of a program ({error}); {_REBUILD}") from error
    version = data.get("format") if isinstance(data, dict) else None
    if type(version) is not int or version != FORMAT:
        newer = type(version) is int and version > FORMAT
        raise IncompatibleError(
            f"{where} has format {reprlib.repr(version)}, this release reads {FORMAT}; "
            + ("install a newer pocketxl" if newer else _REBUILD)
        )
    program = decode(Program, data, where)
    check(program, where)
    return program


def read_program(path: Path) -> Program:
    """The program of a component, from the file whose hash has matched. Raises as `from_json`."""
    if (size := path.stat().st_size) > MOST_BYTES:
        raise IntegrityError(f"{path} has {size} bytes, at most {MOST_BYTES} are a program; {_REBUILD}")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise IntegrityError(f"{path} is not UTF-8 text; {_REBUILD}") from error
    return from_json(text, str(path))
