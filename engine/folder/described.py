"""A JSON file beside a component's weights that describes how it is run: read with bounds, and only in one format."""

import json
import reprlib
from pathlib import Path
from typing import Any

from ..errors import IncompatibleError, IntegrityError

REBUILD = "build the engine again with `pocketxl build`, or copy the folder again"


def read_text(path: Path, what: str, *, most: int) -> str:
    """The text of a file of at most so many bytes whose hash has matched; `what` it is of, for messages.

    Raises `IntegrityError`.
    """
    if (size := path.stat().st_size) > most:
        raise IntegrityError(f"{path} has {size} bytes, at most {most} are {what}; {REBUILD}")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise IntegrityError(f"{path} is not UTF-8 text; {REBUILD}") from error


def parsed(text: str, where: str, what: str, *, format: int) -> Any:
    """The JSON object of that `format`; `where` names the file in messages.

    Raises `IncompatibleError` for another format and `IntegrityError` for what is no JSON.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{where} is not the JSON of {what} ({error}); {REBUILD}") from error
    version = data.get("format") if isinstance(data, dict) else None
    if type(version) is not int or version != format:
        newer = type(version) is int and version > format
        raise IncompatibleError(
            f"{where} has format {reprlib.repr(version)}, this release reads {format}; "
            + ("install a newer pocketxl" if newer else REBUILD)
        )
    return data
