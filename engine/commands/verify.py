"""`pocketxl verify`: every file of an engine folder against its recorded hash."""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

from ..folder.manifest import read_manifest, verify
from ..miniature import engine_folder
from ..progress import Bars, JsonLines, Progress, Silent, track
from .base import Command, emit, say


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("engine", nargs="?", help="engine folder (default: the bundled miniature)")
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def _run(args: argparse.Namespace) -> int:
    folder: Path = engine_folder(args.engine)
    total = sum(entry.size for entry in read_manifest(folder).files)
    with track(_progress(args), "verify", total=total, unit="B") as advance:
        report = verify(folder, advance)
    if args.json:
        emit("verified", engine=str(folder), files=report.files, bytes=report.bytes, unknown=report.unknown)
        return 0
    for name in report.unknown:
        say(f"{name!r} in {folder} does not belong to the engine; nothing reads it")
    say(f"{folder}: {report.files} files, {report.bytes / 1e6:.1f} MB, every hash matches")
    return 0


def _progress(args: argparse.Namespace) -> Progress:
    if args.json:
        return JsonLines(sys.stdout)
    return Bars() if find_spec("tqdm") else Silent()  # the command needs no package otherwise


command = Command(
    help="check every file of an engine folder against its recorded hash",
    example="pocketxl verify my-engine",
    configure=_configure,
    run=_run,
)
