"""Which calls are timed: those of one base forward at 1024², two latents (one picture with guidance), and `edges`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from pocketxl.kernels.sdxl import Call, Value, alternatives, calls, vae_calls
from pocketxl.kernels.sdxl_edges import edges

SIZE: Final = 1024
BATCH: Final = 2
# Of each op, this many distinct calls make the quick list: those that a forward makes most often.
QUICK: Final = 2
# The VAE's largest pictures are left out: their float64 reference takes gigabytes.
LARGEST: Final = 512


def cases(*, quick: bool, ops: Sequence[str] = (), size: int = SIZE, batch: int = BATCH) -> list[Call]:
    """The calls to time, an op's most frequent first and the ops in turn, so that a short run has some of each."""
    found: list[Call] = []
    for precision in ("w8a8", "w4"):
        found += calls("base", height=size, width=size, batch=batch, precision=precision)
    beside = [Call(op=op, shape=shape, count=1) for op, shape in edges() if _side(shape) <= LARGEST]
    beside += vae_calls(height=size, width=size)
    distinct = {name(call): call for call in (*beside, *alternatives(found), *found)}
    by_op: dict[str, list[Call]] = {}
    for call in sorted(distinct.values(), key=lambda call: -call.count):
        if not ops or call.op in ops:
            by_op.setdefault(call.op, []).append(call)
    longest = QUICK if quick else max(map(len, by_op.values()), default=0)
    return [found_[i] for i in range(longest) for found_ in by_op.values() if i < len(found_)]


def _side(shape: Mapping[str, Value]) -> int:
    side = shape.get("h", 1)
    assert isinstance(side, int)
    return side


def name(call: Call) -> str:
    """The case's name in records: op and shape, the same for the same call always."""
    return "_".join([call.op, *_parts(call.shape.items())])


def _parts(items: Iterable[tuple[str, object]]) -> list[str]:
    parts = []
    for key, value in items:
        if value is True:
            parts.append(key)
        elif isinstance(value, tuple):
            parts.append(f"{key}{'x'.join(map(str, value))}")
        elif value is not False:
            parts.append(f"{key}{value}")
    return parts
