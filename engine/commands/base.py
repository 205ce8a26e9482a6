"""What a sub-command is. Packages offer them through the entry-point group `pocketxl.commands`."""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..terminal import printable

ENTRY_POINTS = "pocketxl.commands"


@dataclass(frozen=True, kw_only=True)
class Command:
    """One sub-command: `configure` declares its arguments, `run` does the work and returns the exit status."""

    help: str
    example: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def emit(event: str, **fields: Any) -> None:
    """Write one line of machine-readable output (`--json`)."""
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


def say(text: str, *, lines: bool = False) -> None:
    """Write a line for people, or several with `lines`; foreign text in it cannot steer the terminal."""
    sys.stdout.write(printable(text, lines=lines) + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """Write one line for people to standard error: a complaint, a warning or a hint."""
    sys.stderr.write(f"pocketxl: {printable(text)}\n")
    sys.stderr.flush()
