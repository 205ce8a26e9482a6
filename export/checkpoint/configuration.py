"""Options of a checkpoint's JSON files: read, held to what our modules can do, and bounded.

diffusers and transformers write every option of their classes into a configuration, and another set in each version.
What our modules read is a table of `Option`s, with the libraries' defaults; every other option must be at the value
that SDXL has. So two checkpoints of the same model have equal numbers, and one that our modules cannot run is refused,
by file, key and value.
"""

import json
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...engine.errors import IncompatibleError, IntegrityError, StorageError

Config = dict[str, Any]
ALLOWED = "PocketXL builds SDXL base and refiner, Stable Diffusion 1 and 2, and others of these families"
MOST_LEVELS = 8
MOST_CHANNELS = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Option:
    """A number: its default and the range that is allowed, ends included. A whole one if the default is whole."""

    default: int | float
    least: int | float
    most: int | float

    def allows(self, value: object) -> bool:
        """Whether `value` is such a number; a bool is none."""
        kinds = (int,) if type(self.default) is int else (int, float)
        return isinstance(value, kinds) and type(value) is not bool and self.least <= value <= self.most

    def __str__(self) -> str:
        kind = "a whole number" if type(self.default) is int else "a number"
        return f"{kind} from {self.least} to {self.most}"


@dataclass(frozen=True, kw_only=True)
class JsonFile:
    """One configuration: its content, and its place for what is said of it."""

    data: Config
    path: Path

    def refuse(self, key: str, value: object, allowed: str) -> IncompatibleError:
        """The error for a value that our modules cannot take."""
        return IncompatibleError(f"{self.path}: {shown(key)} is {shown(value)}; {allowed} is allowed. {ALLOWED}")

    def number(self, options: Mapping[str, Option], key: str) -> Any:
        """The number under `key`, or the default if there is none."""
        value = self.said(key, options[key].default)
        if not options[key].allows(value):
            raise self.refuse(key, value, str(options[key]))
        return value

    def said(self, key: str, default: object) -> Any:
        """What stands under `key`, or the default where nothing does; zero and an empty list are something."""
        return self.data[key] if self.data.get(key) is not None else default

    def whole_numbers(self, key: str, default: Sequence[int], option: Option) -> tuple[int, ...]:
        """One whole number for each level, of which there are one to `MOST_LEVELS`."""
        value = self.said(key, default)
        listed = isinstance(value, list | tuple) and 1 <= len(value) <= MOST_LEVELS
        if not listed or not all(map(option.allows, value)):
            raise self.refuse(key, value, f"a list of 1 to {MOST_LEVELS} elements, each {option},")
        return tuple(value)

    def per_level(self, key: str, value: object, levels: int, option: Option) -> tuple[int, ...]:
        """One whole number for each level, given once or as a list."""
        values = [value] * levels if type(value) is int else value
        if not isinstance(values, list | tuple) or len(values) != levels or not all(map(option.allows, values)):
            raise self.refuse(key, value, f"{option}, or one for each of {levels} levels,")
        return tuple(values)

    def divided(self, key: str, values: Sequence[int], divisor: str, by: int) -> None:
        """Every one of `values` must be a multiple of `by`, which is the option `divisor`."""
        if any(value % by for value in values):
            raise self.refuse(key, list(values), f"a multiple of {divisor}, which is {by},")

    def hold(
        self, fixed: Mapping[str, tuple[Any, ...]], known: Callable[[str], bool], required: Sequence[str] = ()
    ) -> None:
        """Every option that our modules do not have must be at SDXL's value."""
        for key in required:
            if key not in self.data:
                raise IncompatibleError(f"{self.path} lacks {key}, which is {fixed[key][0]!r} for SDXL. {ALLOWED}")
        for key, value in self.data.items():
            if key in fixed and value not in fixed[key]:
                raise self.refuse(key, value, repr(fixed[key][0]))
            if key not in fixed and not known(key) and not key.startswith("_") and value not in (None, False):
                raise IncompatibleError(
                    f"{self.path}: {shown(key)} = {shown(value)} is an option that SDXL does not have. {ALLOWED}"
                )


def shown(value: object) -> str:
    """A value out of a file, short enough for a message, and on one line."""
    return value if isinstance(value, str) and value.isidentifier() and len(value) < 60 else reprlib.repr(value)


def read_json(path: Path) -> Config:
    """A JSON object from a file; `IntegrityError` when it is missing or unsound."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise IntegrityError(f"{path} is missing; fetch the checkpoint again") from error
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{path} is not JSON; fetch the checkpoint again") from error
    if not isinstance(data, dict):
        raise IntegrityError(f"{path} holds no JSON object; fetch the checkpoint again")
    return data
