"""`pocketxl prepare`: keep an engine as this machine loads it, so that it starts sooner."""

import argparse
import sys
from dataclasses import asdict

from ..folder.manifest import read_manifest
from ..memory.sizes import format_bytes
from ..miniature import engine_folder
from ..prepare import Preparation, forget_prepared, prepare_engine
from ..progress import Bars, JsonLines
from ..runners.processor import processor_facts
from .base import Command, emit, say


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("engine", nargs="?", help="engine folder (default: the bundled miniature)")
    parser.add_argument("--remove", action="store_true", help="delete what was prepared, for this machine or another")
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def _run(args: argparse.Namespace) -> int:
    folder = engine_folder(args.engine)
    if args.remove:
        freed = forget_prepared(folder)
        if args.json:
            emit("removed", engine=str(folder), bytes=freed)
        else:
            say(f"{folder}: {format_bytes(freed)} of prepared files were deleted")
        return 0
    made: dict[str, Preparation] = {}
    for name, found in prepare_engine(folder, progress=JsonLines(sys.stdout) if args.json else Bars()):
        made[name] = found
        if args.json:
            emit("prepared_component", name=name, **asdict(found))
        else:
            say(_line(name, found))
    size, seconds = sum(one.bytes for one in made.values()), sum(one.seconds for one in made.values())
    if args.json:
        emit("prepared", engine=str(folder), components=sorted(made), bytes=size, seconds=seconds)
    elif made:
        say(f"{folder}: {format_bytes(size)} written in {seconds:.1f} s; `pocketxl prepare --remove` deletes them")
    elif not processor_facts():
        say(f"{folder} was not prepared: this system does not tell what its processor can do, which it depends on")
    else:
        kinds = sorted({entry.runner for entry in read_manifest(folder).components.values()})
        say(f"{folder} has nothing to prepare: its components ({', '.join(kinds)}) gain nothing by it here")
    return 0


def _line(name: str, found: Preparation) -> str:
    after = f"loads in {found.load_seconds:.2f} s"
    if found.load_seconds_before is None:
        return f"  {name:<20} was prepared; {after}"
    return (
        f"  {name:<20} {format_bytes(found.bytes):>10} in {found.seconds:.1f} s; {after} instead of "
        f"{found.load_seconds_before:.2f} s"
    )


command = Command(
    help="keep an engine on the disk as this machine loads it, so that it starts sooner; takes up to twice as much room"
    " again as its U-Nets and text encoders",
    example="pocketxl prepare my-engine",
    configure=_configure,
    run=_run,
)
