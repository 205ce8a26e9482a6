"""Of what kind a hint for a ControlNet-Union is: diffusers' `control_mode`, by number or by name.

The numbers are those of xinsir's controlnet-union-sdxl-1.0 (0 to 5) and its promax form (0 to 7).
"""

import reprlib
from collections.abc import Mapping
from types import MappingProxyType

from ..errors import RequestError

MODE = "control_mode"
KINDS: tuple[tuple[str, ...], ...] = (
    ("openpose",),
    ("depth",),
    ("hed", "pidi", "scribble", "ted"),
    ("canny", "lineart", "anime_lineart", "mlsd"),
    ("normal",),
    ("segment",),
    ("tile",),
    ("repaint",),
)
"""Names of each kind, by its number."""
NUMBERS: Mapping[str, int] = MappingProxyType({name: number for number, names in enumerate(KINDS) for name in names})


def mode_of(value: object, kinds: int, of: str) -> int:
    """The number of a kind among `kinds`, given by number or name; `of`: the ControlNet's name, for messages.

    Raises `RequestError`.
    """
    number = number_of(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < kinds:
        raise RequestError(
            f"{MODE} of {of} is {reprlib.repr(value)}; choose {', '.join(_known(kinds))}, or a number from 0 to "
            f"{kinds - 1}"
        )
    return number


def number_of(text: str) -> int | None:
    """The number that a text names: itself, or a name, or all names of one kind with strokes between; else None."""
    if text.isdecimal() and len(text) < len("1000"):
        return int(text)
    found = {NUMBERS.get(part.strip().replace(" ", "_").lower()) for part in text.split("/")}
    return found.pop() if len(found) == 1 else None


def name_of(mode: int) -> str:
    """The first name of a kind, or its number where it has none."""
    return KINDS[mode][0] if mode < len(KINDS) else str(mode)


def missing(kinds: int, of: str) -> RequestError:
    """The error for a union that is not told of what kind its hint is."""
    return RequestError(
        f"{of} is a ControlNet-Union, which must be told what its picture is; give {MODE} (--control-type): "
        f"{', '.join(_known(kinds))}"
    )


def _known(kinds: int) -> list[str]:
    return [name for names in KINDS[:kinds] for name in names]
