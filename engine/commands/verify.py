"""`pocketxl verify`: every file of an engine folder against its recorded hash."""

import argparse
from pathlib import Path

from ..folder.manifest import verify
from ..miniature import engine_folder
from .base import Command, emit, say


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("engine", nargs="?", help="engine folder (default: the bundled miniature)")
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def _run(args: argparse.Namespace) -> int:
    folder: Path = engine_folder(args.engine)
    report = verify(folder)
    if args.json:
        emit("verified", engine=str(folder), files=report.files, bytes=report.bytes)
    else:
        say(f"{folder}: {report.files} files, {report.bytes / 1e6:.1f} MB, every hash matches")
    return 0


command = Command(
    help="check every file of an engine folder against its recorded hash",
    example="pocketxl verify my-engine",
    configure=_configure,
    run=_run,
)
