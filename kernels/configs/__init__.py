"""Tile sizes, warps and stages: one table per op, a row per architecture and shape, read from JSON.

A table is a list of rows `{"sm": 89, "shape": {"k": 1280, "n": 10240}, "rows": 1024, "config": {…}}`. `shape` names
what the row is for and may be empty (any shape), `rows` may be null (any number). The tuning command writes such rows;
nothing is tuned at a first use.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

from ..errors import KernelError

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


def lookup(op: str, sm: int, rows: int, **shape: int) -> Mapping[str, int]:
    """The configuration for a shape: of the rows that fit it, those that name most of it.

    Among them the one with the smallest `rows` that holds the asked number, else the largest.

    Raises `KernelError`: the table has no row for the architecture.
    """
    if (trial := _TRIAL.get()) and trial.op == op:
        trial.asked.append((rows, shape))
        if trial.config is not None:
            return trial.config
    asked = shape.items()
    found = [row for row in table(op) if row.sm == sm and row.shape.items() <= asked]
    if not found:
        raise KernelError(f"no configuration of {op} for sm_{sm} in {op}.json")
    closest = max(len(row.shape) for row in found)
    found = [row for row in found if len(row.shape) == closest]
    found.sort(key=lambda row: float("inf") if row.rows is None else row.rows)
    return next((row for row in found if row.rows is None or row.rows >= rows), found[-1]).config
