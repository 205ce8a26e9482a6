"""The limits of a request, and the checks of single values. Each raises `RequestError` with value, limits and fix."""

import math
import reprlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import RequestError
from .options import OPTIONS

LIMITS: Mapping[str, tuple[float, float]] = {
    **{name: row.limits for name, row in OPTIONS.items() if row.limits is not None},
    "pixels of a picture": (64, 1 << 24),
    "pictures in all": (1, 256),
    "characters of a prompt": (0, 32_000),
    "threads": (1, 256),
    "scale": (1, 16),
    "max_concurrent_calls": (1, 64),
}
"""Least and greatest allowed value. Steps are bounded by the trained timesteps; the rest keeps a typing error from
asking for terabytes (what fits into memory is the memory plan's question)."""


def pair(name: str, value: object) -> tuple[int, int] | None:
    """Two whole numbers within `LIMITS[name]`, or None."""
    if value is None:
        return None
    parts = listed(name, value)
    if len(parts) != 2:
        raise RequestError(f"{name} is {show(value)}; give two whole numbers")
    first, second = (integer(name, part) for part in parts)
    return first, second


def listed(name: str, value: object) -> list[Any]:
    """A list, tuple, range or one-dimensional array as a list."""
    if isinstance(value, list | tuple | range) or (isinstance(value, np.ndarray) and value.ndim == 1):
        return list(value)
    raise RequestError(f"{name} is {show(value)}; give a list")


def integer(name: str, value: object) -> int:
    """A whole number within `LIMITS[name]`."""
    low, high = LIMITS[name]
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise RequestError(f"{name} is {show(value)}; give a whole number from {low} to {high}")
    if not low <= value <= high:
        raise RequestError(f"{name} is {show(int(value))}; it must be {low} to {high}")
    return int(value)


def number(name: str, value: object) -> float:
    """A finite number within `LIMITS[name]`."""
    low, high = LIMITS[name]
    checked = finite(name, value)
    if not low <= checked <= high:
        raise RequestError(f"{name} is {checked:g}; it must be {low:g} to {high:g}")
    return checked


def finite(name: str, value: object) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise RequestError(f"{name} is {show(value)}; give a number")
    try:
        checked = float(value)
    except OverflowError:
        checked = math.inf
    if not math.isfinite(checked):
        raise RequestError(f"{name} is {checked}; give a finite number")
    return checked


def positive(name: str, value: object) -> float:
    """A finite number above 0."""
    checked = finite(name, value)
    if checked <= 0:
        raise RequestError(f"{name} is {checked:g}; give a number above 0")
    return checked


def boolean(name: str, value: object) -> bool:
    """True or False."""
    if not isinstance(value, bool | np.bool):
        raise RequestError(f"{name} is {show(value)}; give True or False")
    return bool(value)


def short_text(name: str, value: object) -> str:
    """A name."""
    if not isinstance(value, str) or len(value) > 64:
        raise RequestError(f"{name} is {show(value)}; give its name")
    return value


def show(value: object) -> str:
    """A value in a message: short, whatever was given."""
    try:
        return reprlib.repr(value)
    except ValueError:  # an integer of thousands of digits
        return f"a {type(value).__name__} too long to print"
