"""`pocketxl list`: the names that calls take, and what is behind them."""

import argparse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..errors import RequestError
from ..folder.manifest import read_manifest
from ..miniature import engine_folder
from ..presets.table import PRESETS
from ..request.sizes import BUCKETS, size_of
from ..request.styles import read_styles
from ..sampling.samplers.table import SAMPLERS, SCHEDULES
from .base import Command, emit, say

Row = dict[str, Any]


def _samplers(args: argparse.Namespace) -> Iterator[Row]:
    for row in SAMPLERS.values():
        yield {
            "name": row.name, "label": row.label, "evaluations_per_step": row.calls.per_step, "eta": row.eta,
            "aliases": list(row.aliases), "reference": row.reference,
        }  # fmt: skip


def _schedules(args: argparse.Namespace) -> Iterator[Row]:
    for name, label in SCHEDULES.items():
        yield {"name": name, "label": label}


def _presets(args: argparse.Namespace) -> Iterator[Row]:
    for row in PRESETS.values():
        yield {"name": row.name, "summary": row.summary, "options": row.options(), "source": row.source}


def _sizes(args: argparse.Namespace) -> Iterator[Row]:
    native = read_manifest(engine_folder(args.engine)).models.native_size if args.engine else 1024
    for name in BUCKETS:
        width, height = size_of(name, native=native)
        yield {"name": name, "width": width, "height": height}


def _styles(args: argparse.Namespace) -> Iterator[Row]:
    if args.styles_file is None:
        raise RequestError("styles are in a file; give it with --styles-file")
    for style in read_styles(args.styles_file).values():
        yield {"name": style.name, "prompt": style.prompt, "negative_prompt": style.negative_prompt}


LISTS: Mapping[str, Callable[[argparse.Namespace], Iterator[Row]]] = MappingProxyType(
    {"samplers": _samplers, "schedules": _schedules, "presets": _presets, "sizes": _sizes, "styles": _styles}
)
"""By what follows `pocketxl list`."""


def _line(kind: str, row: Row) -> str:
    """What a person needs of a row behind its name."""
    match kind:
        case "samplers":
            twice = ", two evaluations a step" if row["evaluations_per_step"] > 1 else ""
            return f"{row['label']}{twice}{', takes eta' if row['eta'] else ''}"
        case "schedules":
            return str(row["label"])
        case "sizes":
            return f"{row['width']}x{row['height']}"
        case "styles":
            return str(row["prompt"]).replace("\n", " ")
    options = ", ".join(f"{name} {_short(value)}" for name, value in row["options"].items())
    return f"{row['summary']}\n  {options}" + (f"\n  see the {row['source']}" if row["source"] else "")


def _short(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return " ".join(f"{item:g}" for item in value) if isinstance(value, tuple) else str(value).removesuffix(".0")


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=LISTS, metavar="WHAT", help=f"one of {', '.join(LISTS)}")
    parser.add_argument("--engine", help="sizes of this engine folder's model (default: of native size 1024)")
    parser.add_argument("--styles-file", type=Path, metavar="FILE", help="the file of `list styles`")
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def _run(args: argparse.Namespace) -> int:
    rows = list(LISTS[args.what](args))
    if args.json:
        emit(args.what, **{args.what: rows})
        return 0
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        say(f"{row['name']:<{width}}  {_line(args.what, row)}", lines=args.what == "presets")
    return 0


command = Command(
    help="print the names of samplers, schedules, presets, sizes and styles",
    example="pocketxl list presets",
    configure=_configure,
    run=_run,
)
