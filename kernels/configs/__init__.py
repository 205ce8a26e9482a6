"""Tile sizes, warps and stages: one table per op, a row per architecture and shape, read from JSON.

A table is a list of rows `{"sm": 89, "shape": {"k": 1280, "n": 10240}, "rows": 1024, "config": {…}}`. `shape` names
what the row is for and may be empty (any shape), `rows` may be null (any number). Rows that differ in `tile` of their
shape alone are alternatives: which one serves, rows and shape decide (`tiles`). The tuning command writes such rows;
nothing is tuned at a first use.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

from ..architecture import Architecture
from ..errors import KernelError
from .tiles import fits_depth, nanoseconds

FOLDER: Final = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row: for up to `rows` rows of a `shape` on an architecture, this configuration."""

    sm: int
    shape: Mapping[str, int]
    rows: int | None
    config: Mapping[str, int]


@cache
def table(op: str) -> tuple[Row, ...]:
    """The rows of an op's table."""
    with (FOLDER / f"{op}.json").open(encoding="utf-8") as file:
        data = json.load(file)
    return tuple(Row(sm=row["sm"], shape=row["shape"], rows=row["rows"], config=row["config"]) for row in data)


@cache
def digest() -> str:
    """The sha256 of all tables, in hex: whoever launches must have those that the kernels were compiled by."""
    found = hashlib.sha256()
    for path in sorted(FOLDER.glob("*.json")):
        rows = json.loads(path.read_text(encoding="utf-8"))
        found.update(f"{path.name} {json.dumps(rows, sort_keys=True)}\n".encode())
    return found.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A configuration that is tried in place of the table's, and the (rows, shape) that were asked of it."""

    op: str
    config: Mapping[str, int] | None
    asked: list[tuple[int, dict[str, int]]] = field(default_factory=list)


_TRIAL: Final[ContextVar[Trial | None]] = ContextVar("trial", default=None)


@contextmanager
def trying(op: str, config: Mapping[str, int] | None = None) -> Iterator[Trial]:
    """Within, lookups of `op` give `config` (None: the table's) and are noted: how the tuning command makes plans."""
    trial = Trial(op=op, config=config)
    token = _TRIAL.set(trial)
    try:
        yield trial
    finally:
        _TRIAL.reset(token)


def lookup(op: str, arch: Architecture, rows: int, **shape: int) -> Mapping[str, int]:
    """The configuration for a shape: of the rows that fit it, those that name most of it.

    Among them the one with the smallest `rows` that holds the asked number, else the largest; of alternatives the one
    that this card's multiprocessors should be done with first.

    Raises `KernelError`: the table has no row for the architecture.
    """
    if (trial := _TRIAL.get()) and trial.op == op:
        trial.asked.append((rows, shape))
        if trial.config is not None:
            return trial.config
    found = _closest(op, arch.sm, shape)
    limits = [float("inf") if row.rows is None else row.rows for row in found]
    limit = min((limit for limit in limits if limit >= rows), default=max(limits))
    last = [row.config for row, its in zip(found, limits, strict=True) if its == limit]
    if len(last) == 1:
        return last[0]
    size = {"rows": rows, "n": shape["n"], "k": shape["k"] + shape.get("k2", 0)}
    return min(last, key=lambda config: nanoseconds(config, arch.multiprocessors, **size))


def every(op: str, sm: int, **shape: int) -> tuple[Row, ...]:
    """All rows that `lookup` chooses from for a shape, over all numbers of rows.

    Raises `KernelError`: the table has no row for the architecture.
    """
    return tuple(_closest(op, sm, shape))


def _closest(op: str, sm: int, shape: Mapping[str, int]) -> list[Row]:
    """The rows that fit a shape and name most of it."""
    fit = [row for row in table(op) if row.sm == sm and _named(row) <= shape.items()]
    fit = [row for row in fit if "tile" not in row.shape or _takes(row, shape)]
    if not fit:
        raise KernelError(f"no configuration of {op} for sm_{sm} in {op}.json")
    most = max(len(_named(row)) for row in fit)
    return [row for row in fit if len(_named(row)) == most]


def _takes(row: Row, shape: Mapping[str, int]) -> bool:
    """Whether a tile has whole steps for the depth, or for both of two products that it sums."""
    return all(fits_depth(row.config, shape[name]) for name in ("k", "k2") if name in shape)


def _named(row: Row) -> Set[tuple[str, int]]:
    """What a row names of the shape that is asked for."""
    return {(name, value) for name, value in row.shape.items() if name != "tile"}
