"""`FOLDER=PICTURE:SCALE`, as flags have it that steer by a picture."""

import math
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

from ..errors import RequestError

FORM = "FOLDER=PICTURE or FOLDER=PICTURE:SCALE"


def parsed(flag: str, text: str) -> tuple[str, str, float | None]:
    """Folder, picture, scale. A colon before anything but a number belongs to the picture's name."""
    folder, equals, rest = text.partition("=")
    if not (folder and equals and rest):
        raise RequestError(f"{flag} is {text!r}; give {FORM}")
    picture, colon, number = rest.rpartition(":")
    try:
        scale = float(number) if colon and picture else math.nan
    except ValueError:
        scale = math.nan
    return (folder, rest, None) if math.isnan(scale) else (folder, picture, scale)


def names_of(folders: Sequence[str]) -> list[str]:
    """A name for each: its folder's, with a number where that is another's already."""
    found: list[str] = []
    for folder in folders:
        name = "".join(c if c.isalnum() or c in " ._-" else "_" for c in Path(folder).resolve().name)[:48] or "control"
        name = name if name[0].isalnum() else f"_{name}"
        used = (f"{name}-{number}" for number in count(2))
        found.append(name if name not in found else next(other for other in used if other not in found))
    return found


def first(*values: Any) -> Any:
    """The first that is not None, or None."""
    return next((value for value in values if value is not None), None)
