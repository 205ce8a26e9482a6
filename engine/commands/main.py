"""The command `pocketxl`: finds its sub-commands, and turns errors into one line and an exit status.

Exit status: 0 done · 2 bad argument · 3 does not fit (family, target, version, package) · 4 memory · 5 storage ·
6 a file is damaged or refused · 7 quality gate missed · 8 NaN or Inf · 130 interrupted · 141 the reader of our output
went away · 1 anything else.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from functools import partial
from importlib import metadata
from typing import Any, NoReturn, TextIO

from ...kernels.errors import KernelError
from ..errors import IncompatibleError, MemoryBudgetError, PocketXLError, RequestError, StorageError
from ..install import install_advice
from ..terminal import prepare_streams, printable
from .base import ENTRY_POINTS, Command, emit, note

INTERRUPTED = 130
READER_GONE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status. `--help` and `--version` raise `SystemExit(0)`, as in argparse."""
    prepare_streams()
    try:
        status = _main(list(sys.argv[1:] if argv is None else argv))
        _settle()
    except BrokenPipeError:
        # The reader of our output went away (`pocketxl inspect … | head`); what was asked for may not be done.
        _abandon(sys.stdout, sys.stderr)
        return READER_GONE
    return status


def _main(arguments: list[str]) -> int:
    as_json = "--json" in arguments
    try:
        args = _parsed(_parser(_commands()), arguments)
        return int(args.run(args))
    except KeyboardInterrupt as error:
        # A command may say itself what was done; an error carries notes of what it has left where.
        message = str(error) or f"interrupted{_notes(error) or '; nothing half-written was left'}"
        return _fail(message, "Interrupted", INTERRUPTED, as_json)
    except (PocketXLError, KernelError) as error:
        return _fail(f"{error}{_notes(error)}", type(error).__name__, error.exit_code, as_json)
    except ImportError as error:
        lacking = _lacking(arguments[0], error)
        return _fail(str(lacking), type(lacking).__name__, lacking.exit_code, as_json)
    except MemoryError:
        message = "the machine ran out of memory; see `pocketxl plan` for what a picture needs"
        return _fail(message, "MemoryBudgetError", MemoryBudgetError.exit_code, as_json)
    except BrokenPipeError:
        raise
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        return _fail(f"{error.strerror or error}{where}", "StorageError", StorageError.exit_code, as_json)


def _parsed(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    """The arguments; an unknown one is told with the likeliest flag of its sub-command, and the way to its help."""
    args, unknown = parser.parse_known_args(arguments)
    if unknown:
        sub: argparse.ArgumentParser = args.parser
        flag = unknown[0].split("=")[0]
        near = get_close_matches(flag[:64], sub._option_string_actions, n=1)
        meant = f" (did you mean {near[0]}?)" if near and flag.startswith("-") else ""
        sub.error(f"unknown: {' '.join(unknown)}{meant}")
    return args


class _Parser(argparse.ArgumentParser):
    """Tells a mistake in one line, like every other error, instead of behind a screen of usage."""

    def error(self, message: str) -> NoReturn:
        raise RequestError(f"{message[:500]}; see `{self.prog} --help`")


def _commands() -> dict[str, Command]:
    found = {}
    for point in sorted(metadata.entry_points(group=ENTRY_POINTS), key=lambda p: p.name):
        try:
            found[point.name] = point.load()
        except ImportError as error:
            found[point.name] = _unavailable(point.name, error)
    return found


def _unavailable(name: str, error: ImportError) -> Command:
    """Stands in for a sub-command whose packages are not installed, so that the others still work."""

    def configure(parser: argparse.ArgumentParser) -> None:
        parser.set_defaults(run=run)

    def run(args: argparse.Namespace) -> int:
        raise _lacking(name, error)

    return Command(
        help=printable(str(_lacking(name, error))).replace("%", "%%"), example="", configure=configure, run=run
    )


def _lacking(command: str, error: ImportError) -> IncompatibleError:
    extra = "export" if command == "build" else "cpu"
    return IncompatibleError(
        f"`pocketxl {command}` needs a package that is not here ({error}); {install_advice(extra)}"
    )


def _parser(commands: dict[str, Command]) -> argparse.ArgumentParser:
    layout: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
    parser = _Parser(
        prog="pocketxl",
        description="Build an engine from a Stable Diffusion checkpoint once, then make pictures with it on a budget.",
        epilog="first picture:\n  pocketxl generate 'a red apple on a blue background' -o apple.png",
        **layout,
    )
    parser.add_argument("--version", action="version", version=f"pocketxl {metadata.version('pocketxl')}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in commands.items():
        epilog = f"example:\n  {command.example}" if command.example else None
        sub = subparsers.add_parser(name, help=command.help, description=command.help, epilog=epilog, **layout)
        command.configure(sub)
        sub.set_defaults(run=command.run, parser=sub)
    return parser


def _notes(error: BaseException) -> str:
    """What a command has added to an error on its way: where it has left its work, say."""
    return "".join(f"; {note}" for note in getattr(error, "__notes__", ()))


def _fail(message: str, kind: str, status: int, as_json: bool) -> int:
    """Tell a failure wherever it can be told; the status is the failure's, whatever becomes of the words."""
    words = [partial(note, message)]
    if as_json:
        words.insert(0, partial(emit, "error", error=kind, message=message, exit_code=status))
    for tell in words:
        try:
            tell()
        except BrokenPipeError:
            raise
        except OSError:
            continue
    return status


def _settle() -> None:
    """Give up what could not be written (the disk behind it is full): Python would fail on it again when it ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            raise
        except OSError:
            _abandon(stream)


def _abandon(*streams: TextIO) -> None:
    """Let streams that cannot be written end in the null device."""
    for stream in streams:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    sys.exit(main())
