"""Frozen dataclasses ↔ plain JSON data, held to their declared types: unknown keys and wrong types are errors.

The vocabulary is what `engine.json` needs: dataclasses, `tuple[X, ...]`, `Mapping[str, X]`, `str`, `int`, `float`,
`bool`, `StrEnum`s, unions of `str`, `int`, `float`, `bool` and tuples of these, one of all these or None, and `Any` for
what belongs to somebody else.
"""

import functools
import math
import reprlib
import sys
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from ..errors import IntegrityError, NumericError

T = TypeVar("T")
# JSON has no infinity, and a lossless component has an infinite PSNR.
_INFINITY = {"inf": math.inf, "-inf": -math.inf}
_MOST = int(sys.float_info.max)


def encode(value: Any) -> Any:
    """Dataclasses, mappings and tuples → dicts and lists that `json` writes. NaN is a `NumericError`."""
    if is_dataclass(value) and not isinstance(value, type):
        found = {f.name: (getattr(value, f.name), f.metadata) for f in fields(value)}
        return {name: encode(item) for name, (item, how) in found.items() if "sparse" not in how or item}
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        if math.isnan(value):
            raise NumericError("NaN does not belong into engine.json; the measurement that made it failed")
        return "inf" if value > 0 else "-inf"
    return str(value) if isinstance(value, StrEnum) else value


def decode(kind: type[T], data: Any, where: str) -> T:
    """Inverse of `encode`; `where` names the place in error messages. Raises `IntegrityError`."""
    value: T = _decode(kind, data, where)
    return value


def _decode(kind: Any, data: Any, where: str) -> Any:
    if kind is Any:
        return data
    if is_dataclass(kind):
        return _dataclass(kind, data, where)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        if type(data) is str and data in list(kind):
            return kind(data)
        raise _wrong(where, f"one of {', '.join(kind)}", data)
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType) and data is not None and sum(arg is not type(None) for arg in args) == 1:
        return _decode(next(arg for arg in args if arg is not type(None)), data, where)
    if origin in (Union, types.UnionType):
        # bool is an int to isinstance, so the exact type decides.
        if any(type(data) is arg for arg in args):
            return data
        others = [arg for arg in args if arg is not types.NoneType]
        if isinstance(data, list):  # of the tuples that it may be, one whose items are of its kind
            kinds = {type(item) for item in data}
            others = [arg for arg in others if get_origin(arg) is tuple and kinds <= {get_args(arg)[0]}]
            if not others:
                raise _wrong(where, " or ".join(map(str, args)), data)
            return _decode(others[0], data, where)
        if len(others) == 1:  # what may be left out, and is not
            return _decode(others[0], data, where)
        raise _wrong(where, " or ".join(arg.__name__ for arg in args), data)
    if origin is tuple:
        if not isinstance(data, list):
            raise _wrong(where, "a list", data)
        return tuple(_decode(args[0], item, f"{where}[{i}]") for i, item in enumerate(data))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(data, dict):
            raise _wrong(where, "an object", data)
        return {key: _decode(args[1], item, f"{where}.{key}") for key, item in data.items()}
    if kind is float:
        if type(data) is int and abs(data) >= _MOST:
            raise _wrong(where, "a number that a float holds", data)
        if type(data) in (int, float):
            return float(data)
        if data in ("inf", "-inf"):
            return _INFINITY[data]
    elif type(data) is kind:
        return data
    raise _wrong(where, kind.__name__, data)


def _dataclass(kind: Any, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise _wrong(where, "an object", data)
    hints = _hints(kind)
    known = {f.name: f for f in fields(kind)}
    if unknown := sorted(set(data) - set(known)):
        raise IntegrityError(f"{where} has unknown keys {reprlib.repr(unknown)}, allowed are {sorted(known)}")
    needed = {f.name for f in known.values() if f.default is MISSING and f.default_factory is MISSING}
    if missing := sorted(needed - set(data)):
        raise IntegrityError(f"{where} lacks the keys {missing}")
    return kind(**{key: _decode(hints[key], value, f"{where}.{key}") for key, value in data.items()})


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _wrong(where: str, wanted: str, data: Any) -> IntegrityError:
    return IntegrityError(f"{where} must be {wanted}, it is {type(data).__name__} {reprlib.repr(data)[:80]}")
