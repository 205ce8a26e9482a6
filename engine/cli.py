"""The command `pocketxl`: finds its sub-commands, and turns errors into one line and an exit status.

Exit status: 0 done · 2 bad argument · 3 does not fit (family, target, version, package) · 4 memory · 5 storage ·
6 a file is damaged or refused · 7 quality gate missed · 8 NaN or Inf · 130 interrupted · 1 anything else.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import metadata

from .commands.base import ENTRY_POINTS, Command, emit
from .errors import MemoryBudgetError, PocketXLError, StorageError

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _parser(_commands())
    args = parser.parse_args(arguments)
    as_json = bool(getattr(args, "json", False))
    try:
        return int(args.run(args))
    except KeyboardInterrupt:
        return _fail("interrupted; nothing half-written was left", "Interrupted", INTERRUPTED, as_json)
    except PocketXLError as error:
        return _fail(str(error), type(error).__name__, error.exit_code, as_json)
    except MemoryError:
        message = "the machine ran out of memory; see `pocketxl plan` for what a picture needs"
        return _fail(message, "MemoryBudgetError", MemoryBudgetError.exit_code, as_json)
    except BrokenPipeError:
        # The reader of our output went away (`pocketxl inspect … | head`): not an error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        return _fail(f"{error.strerror or error}{where}", "StorageError", StorageError.exit_code, as_json)


def _commands() -> dict[str, Command]:
    found = {}
    for point in sorted(metadata.entry_points(group=ENTRY_POINTS), key=lambda p: p.name):
        try:
            found[point.name] = point.load()
        except ImportError as error:
            found[point.name] = _unavailable(point.name, error)
    return found


def _unavailable(name: str, error: ImportError) -> Command:
    """Stands in for a sub-command whose packages are not installed, so that it can say so."""

    def configure(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("rest", nargs="*", help=argparse.SUPPRESS)

    def run(args: argparse.Namespace) -> int:
        from .errors import IncompatibleError

        raise IncompatibleError(f"`pocketxl {name}` needs packages that are not here ({error}); "
                                "install them with: pip install 'pocketxl[export]'")  # fmt: skip

    return Command(help=f"(needs pip install 'pocketxl[export]': {error})", example="", configure=configure, run=run)


def _parser(commands: dict[str, Command]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pocketxl",
        description="Build an engine from an SDXL checkpoint once, then make pictures with it on a budget.",
        epilog="First picture: pocketxl generate 'a red apple on a blue background' -o apple.png",
    )
    parser.add_argument("--version", action="version", version=f"pocketxl {metadata.version('pocketxl')}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in commands.items():
        epilog = f"Example: {command.example}" if command.example else None
        sub = subparsers.add_parser(name, help=command.help, description=command.help, epilog=epilog)
        command.configure(sub)
        sub.set_defaults(run=command.run)
    return parser


def _fail(message: str, kind: str, status: int, as_json: bool) -> int:
    if as_json:
        emit("error", error=kind, message=message, exit_code=status)
    sys.stderr.write(f"pocketxl: {message}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
