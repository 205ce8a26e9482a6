"""What a sub-command is. Packages offer them through the entry-point group `pocketxl.commands`."""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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


def say(text: str) -> None:
    """Write one line for people."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
