"""Tune a configuration table on the GPU at hand: candidates near its own, compiled, compared, measured, written.

Only when it is asked for: no op tunes itself at a first use. What is measured are the shapes that SDXL's forwards call
(`sdxl.calls`); a row is written where a candidate beats the table by `MARGIN`.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, Final

from .architecture import Architecture, architecture
from .configs import FOLDER, Row, lookup, table, trying
from .errors import KernelError
from .launch import LaunchPlan
from .sdxl import PRECISIONS, Call, alternatives, calls, launch_plan, vae_calls
from .sdxl_edges import edges

Config = Mapping[str, int]
MARGIN: Final = 0.02
"""A win below this share of the time is taken for noise."""
SAME: Final = 2e-2
"""Outputs of two configurations may differ by this share of the largest: sums in another order, rounded to 16 bits."""
LIMITS: Final[Mapping[str, tuple[int, int]]] = {"num_warps": (2, 8), "num_stages": (1, 5)}
BLOCKS: Final = (16, 256)  # sides of a tile of a matrix product
OTHERS: Final = (1, 2**20)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row of a table to be: the call that stands for it, and what the table says today."""

    table: str
    call: Call
    rows: int
    shape: tuple[tuple[str, int], ...]
    config: Config


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What measuring a case found; `best` is the table's own configuration where nothing beat it."""

    case: Case
    best: Config
    seconds: float
    before: float
    tried: int


def cases(name: str, arch: Architecture, found: Iterable[Call]) -> list[Case]:
    """The distinct (rows, shape) that `found` ask of the table `name`, each with the first call that asks."""
    result: dict[tuple[int, tuple[tuple[str, int], ...]], Case] = {}
    for call in found:
        with trying(name) as trial:
            launch_plan(call, arch)
        for rows, shape in trial.asked:
            key = (rows, tuple(sorted(shape.items())))
            config = lookup(name, arch, rows, **shape)
            result.setdefault(key, Case(table=name, call=call, rows=rows, shape=key[1], config=config))
    return list(result.values())


def candidates(config: Config) -> Iterator[dict[str, int]]:
    """The configuration itself, then all that differ in one or two of its numbers by one step.

    A step doubles or halves; for `num_stages` it is one more or less. `GROUP_M` only orders the tiles and stays, as do
    OVERLAP, which names a kernel, and what choosing between tiles goes by.
    """
    yield dict(config)
    names = [name for name in config if name not in ("GROUP_M", "OVERLAP") and not name.endswith("_NS")]
    single = {name: _steps(name, config[name]) for name in names}
    for count in (1, 2):
        for chosen in combinations(names, count):
            yield from _product(dict(config), chosen, single)


def merge(old: Iterable[Row], new: Iterable[Row]) -> list[Row]:
    """The rows of a table with those of the same architecture, shape and number of rows replaced; in order."""
    rows = {(row.sm, _key(row), row.rows): row for row in (*old, *new)}
    return sorted(rows.values(), key=lambda row: (row.sm, _key(row), float("inf") if row.rows is None else row.rows))


def check_writable(path: Path) -> None:
    """Refuse a table that cannot be written before anything is measured.

    Raises `OSError`: the folder is missing or refuses new files, or a folder has the table's name.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder; name a file", str(path))
    with tempfile.TemporaryFile(dir=path.parent):
        pass


def read_table(path: Path) -> list[Row]:
    """The rows of a table; none where there is no file."""
    if not path.exists():
        return []
    return [Row(**row) for row in json.loads(path.read_text(encoding="utf-8"))]


def write_table(path: Path, rows: Iterable[Row]) -> None:
    """Write a table, a row a line, so that another process sees the old one or the new one and nothing between."""
    lines = [json.dumps({"sm": r.sm, "shape": dict(r.shape), "rows": r.rows, "config": dict(r.config)}) for r in rows]
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_text("[\n  " + ",\n  ".join(lines) + "\n]\n", encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def compiled(case: Case, arch: Architecture, jobs: int) -> list[tuple[dict[str, int], LaunchPlan]]:
    """The candidates of a case that the constraints take and that compile without a fault, with their plans."""
    from .binaries import compile_all

    found: list[tuple[dict[str, int], LaunchPlan]] = []
    for config in candidates(case.config):
        with trying(case.table, config):
            try:
                found.append((config, launch_plan(case.call, arch)))
            except KernelError:
                continue
    results = compile_all([variant for _, made in found for variant in made.variants], arch, jobs=jobs)
    good = {result.variant for result in results if not result.faults}
    return [(config, made) for config, made in found if set(made.variants) <= good]


def tune_case(case: Case, arch: Architecture, jobs: int) -> Outcome:
    """Measure every candidate of a case on the current GPU.

    Raises `KernelError`: the table's own configuration does not compile.
    """
    import torch
    from torch._library.triton import set_wrap_triton_enabled

    from .execute import execute
    from .samples import samples
    from .timing import CudaGraphs, copies_for, measure

    usable = compiled(case, arch, jobs)
    if not usable or usable[0][0] != dict(case.config):
        raise KernelError(f"{case.call.op}: the table's configuration {dict(case.config)} does not compile")
    own = usable[0][1]
    size = sum(buffer.size_bytes for buffer in own.buffers.values())
    copies = copies_for(size, torch.cuda.get_device_properties(0).L2_cache_size)
    inputs = [samples(own, device="cuda", seed=1000 * i) for i in range(copies)]
    seconds: list[tuple[float, dict[str, int]]] = []
    with set_wrap_triton_enabled(False):  # nothing traces these launches: they go straight to Triton
        truth = execute(own, inputs[0])
        for config, made in usable:
            if not _same(execute(made, inputs[0]), truth):
                sys.stderr.write(f"{case.call.op} {config}: gives another result, left out\n")
                continue
            work = [partial(execute, made, given) for given in inputs]
            seconds.append((measure(work, CudaGraphs()).seconds, config))
    before = seconds[0][0]
    best, config = min(seconds, key=lambda item: item[0])
    if best > before * (1 - MARGIN):
        best, config = before, dict(case.config)
    return Outcome(case=case, best=config, seconds=best, before=before, tried=len(seconds))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the `tune` command."""
    names = sorted(path.stem for path in FOLDER.glob("*.json"))
    parser.add_argument("--op", required=True, choices=names, metavar="OP", help="the table: " + ", ".join(names))
    parser.add_argument("--sm", default="current", metavar="N", help="default: that of this machine's GPU")
    parser.add_argument("--model", nargs="+", choices=("base", "refiner"), default=["base", "refiner"])
    parser.add_argument("--size", nargs="+", default=["1024x1024"], metavar="WxH", help="default: 1024x1024")
    parser.add_argument("--batch", type=int, nargs="+", default=[2], help="latents; 2 is one picture with guidance")
    parser.add_argument("--table", type=Path, metavar="FILE", help="table to read and write; default: the packaged one")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes that compile")
    parser.add_argument("--dry-run", action="store_true", help="compile the candidates only; needs no GPU, but --sm")


def run(options: argparse.Namespace) -> int:
    """Tune one table and write it; 0 when done.

    Raises `KernelError`: no GPU, or another than `--sm` says.
    """
    arch = _architecture(options.sm, needs_gpu=not options.dry_run)
    path = options.table or FOLDER / f"{options.op}.json"
    if not options.dry_run:
        check_writable(path)
    found = [
        call
        for model in options.model
        for width, height in map(_size, options.size)
        for batch in options.batch
        for precision in PRECISIONS
        for call in calls(model, height=height, width=width, batch=batch, precision=precision)
    ]
    found += [*alternatives(found), *(Call(op=op, shape=shape, count=1) for op, shape in edges())]
    found += [call for width, height in map(_size, options.size) for call in vae_calls(height=height, width=width)]
    rows = read_table(path)
    for case in cases(options.op, arch, found):
        where = f"rows={case.rows} " + " ".join(f"{name}={value}" for name, value in case.shape)
        if options.dry_run:
            usable = compiled(case, arch, options.jobs)
            total = sum(1 for _ in candidates(case.config))
            sys.stdout.write(f"{options.op} {where}: {len(usable)} of {total} candidates compile for sm_{arch.sm}\n")
            continue
        outcome = tune_case(case, arch, options.jobs)
        sys.stdout.write(
            f"{options.op} {where}: {outcome.before * 1e6:.1f} -> {outcome.seconds * 1e6:.1f} us "
            f"({outcome.tried} tried) {json.dumps(outcome.best)}\n"
        )
        if outcome.best != dict(case.config):
            rows = merge(rows, [Row(sm=arch.sm, shape=dict(case.shape), rows=case.rows, config=outcome.best)])
            write_table(path, rows)  # after each case: what was measured survives an interruption
            table.cache_clear()
    return 0


def _architecture(sm: str, *, needs_gpu: bool) -> Architecture:
    if not needs_gpu:
        if sm == "current":
            raise KernelError("--dry-run looks at no GPU: name an architecture, for example --sm 86")
        return architecture(int(sm))
    import torch

    if not torch.cuda.is_available():
        raise KernelError("tuning measures on a GPU and torch sees none; --dry-run --sm N compiles the candidates only")
    major, minor = torch.cuda.get_device_capability()
    here = architecture(10 * major + minor, torch.cuda.get_device_properties().multi_processor_count)
    if sm not in ("current", str(here.sm)):
        raise KernelError(f"--sm {sm}, but this machine's GPU is an sm_{here.sm}; leave --sm out")
    return here


def _size(text: str) -> tuple[int, int]:
    width, cross, height = text.partition("x")
    if not (cross and width.isdecimal() and height.isdecimal()):
        raise KernelError(f"--size takes WIDTHxHEIGHT in pixels such as 1216x832, not {text!r}")
    return int(width), int(height)


def _steps(name: str, value: int) -> list[int]:
    low, high = LIMITS.get(name, BLOCKS if name.startswith("BLOCK") else OTHERS)
    near = (value - 1, value + 1) if name == "num_stages" else (value // 2, value * 2)
    return [item for item in near if low <= item <= high]


def _product(
    config: dict[str, int], names: tuple[str, ...], steps: Mapping[str, list[int]]
) -> Iterator[dict[str, int]]:
    if not names:
        yield config
        return
    for value in steps[names[0]]:
        yield from _product({**config, names[0]: value}, names[1:], steps)


def _key(row: Row) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(row.shape.items()))


def _same(value: Mapping[str, Any], truth: Mapping[str, Any]) -> bool:
    for name, expected in truth.items():
        largest = float(expected.float().abs().max())
        if not float((value[name].float() - expected.float()).abs().max()) <= SAME * largest:
            return False
    return True
