"""The command line as a whole: one line an error, the right status, help that works, JSON that parses."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pocketxl.engine.commands import main as cli
from pocketxl.engine.commands.base import Command
from pocketxl.engine.errors import PocketXLError
from pocketxl.kernels.compile import CompileError
from pocketxl.kernels.errors import KernelError, UnsupportedArchitectureError, UnsupportedShapeError

from ...fixtures.command_line import run

COMMANDS = ("build", "check", "generate", "inspect", "plan", "verify")


def classes(kind: type[PocketXLError]) -> list[type[PocketXLError]]:
    return [kind, *(found for below in kind.__subclasses__() for found in classes(below))]


def stub(monkeypatch: pytest.MonkeyPatch, raises: BaseException) -> None:
    """Puts one sub-command, `work`, in the place of all."""

    def work(args: object) -> int:
        raise raises

    def configure(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true")

    command = Command(help="work", example="", configure=configure, run=work)
    monkeypatch.setattr(cli, "_commands", lambda: {"work": command})


@pytest.mark.parametrize("kind", classes(PocketXLError), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("json", [(), ("--json",)], ids=["text", "json"])
def test_every_error_is_one_line_and_its_own_status(
    kind: type[PocketXLError],
    json: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stub(monkeypatch, kind("the reason"))
    shown = run(capsys, "work", *json)
    assert shown.complaint() == "pocketxl: the reason"
    assert shown.status == kind.exit_code
    expected = {"event": "error", "error": kind.__name__, "message": "the reason", "exit_code": kind.exit_code}
    assert shown.events() == ([expected] if json else [])


@pytest.mark.parametrize("error", [PocketXLError("the reason"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_what_a_command_has_left_is_told_with_its_error(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error.add_note("what is finished is kept")
    stub(monkeypatch, error)
    first = "the reason" if isinstance(error, PocketXLError) else "interrupted"
    assert run(capsys, "work").complaint() == f"pocketxl: {first}; what is finished is kept"


@pytest.mark.parametrize(
    ("kind", "status"),
    [(KernelError, 2), (UnsupportedShapeError, 3), (UnsupportedArchitectureError, 3), (CompileError, 1)],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_an_error_of_the_kernels_is_one_line_too(
    kind: type[KernelError], status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stub(monkeypatch, kind("the reason"))
    shown = run(capsys, "work")
    assert (shown.status, shown.complaint()) == (status, "pocketxl: the reason")


def test_the_statuses_tell_the_errors_apart() -> None:
    codes = [kind.exit_code for kind in classes(PocketXLError)]
    assert len(set(codes)) == len(codes)
    assert not {0, cli.INTERRUPTED, cli.READER_GONE} & set(codes)


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 4, "ran out of memory"),
        (OSError(28, "No space left on device", "/disk/file"), 5, "No space left on device (/disk/file)"),
        (ModuleNotFoundError("No module named 'tqdm'"), 3, "pip install -e '.[cpu]'"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_errors_that_are_not_ours_are_told_in_one_line_too(
    error: BaseException, status: int, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stub(monkeypatch, error)
    shown = run(capsys, "work")
    assert shown.status == status
    assert says in shown.complaint()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "COMMAND"),
        (("paint",), "'paint'"),
        (("generate",), "prompt"),
        (("generate", "a cat", "--colour"), "--colour"),
        (("generate", "a cat", "--stpes", "3"), "--stpes 3 (did you mean --steps?); see `pocketxl generate --help`"),
        (("generate", "--hieght=64", "a cat"), "did you mean --height?"),
        (("plan", "a", "b"), "unknown: b; see `pocketxl plan --help`"),
        (("generate", "a cat", "--seed", "x"), "--seed"),
        (("generate", "a cat", "--seed", "9" * 5000), "--seed"),
        (("generate", "a cat", "--height", "12.5"), "--height"),
        (("build",), "source"),
        (("build", "somewhere"), "-o"),
        (("build", "somewhere", "-o", "x", "--calibration-size", "big"), "--calibration-size"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)
def test_mistakes_on_the_command_line_are_one_line_with_the_way_to_help(
    arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = run(capsys, *arguments)
    assert shown.status == 2
    assert says in shown.complaint()
    assert "--help`" in shown.complaint()
    assert len(shown.complaint()) < 700
    assert run(capsys, *arguments, "--json").events()[0]["exit_code"] == 2


def test_help_lists_the_commands_and_each_has_an_example_that_parses(capsys: pytest.CaptureFixture[str]) -> None:
    import shlex

    for command in ("", *COMMANDS):
        with pytest.raises(SystemExit) as ended:
            run(capsys, *([command] if command else []), "--help")
        assert ended.value.code == 0
        text = capsys.readouterr().out
        if not command:
            assert all(f"\n    {name} " in text for name in COMMANDS)
        example = text.rstrip().splitlines()[-1].split()
        assert example[0] == "pocketxl"
        parsed = cli._parser(cli._commands()).parse_args(shlex.split(text.rstrip().splitlines()[-1])[1:])
        assert parsed.command == (command or "generate")


def test_a_command_whose_packages_are_missing_leaves_the_others_working(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.delitem(sys.modules, "pocketxl.export.cli", raising=False)
    monkeypatch.setitem(sys.modules, "pocketxl.export.build", None)
    shown = run(capsys, "build", "somewhere", "-o", tmp_path / "engine")
    assert shown.status == 3
    assert "pip install -e '.[export]'" in shown.complaint()
    assert run(capsys, "inspect", "nowhere").status == 5


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    command = [sys.executable, "-m", "pocketxl.engine.commands.main", "plan", "nowhere", "--json"]
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as gone:
        ended = subprocess.run(command, stdout=gone, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    assert "Traceback" not in ended.stderr
    assert ended.returncode != 0


def test_the_package_runs_as_a_module_and_tells_its_version() -> None:
    from importlib import metadata

    from pocketxl import engine

    ended = subprocess.run(
        [sys.executable, "-m", "pocketxl.engine", "--version"], capture_output=True, text=True, check=True, timeout=60
    )
    assert ended.stdout == f"pocketxl {metadata.version('pocketxl')}\n"
    assert engine.__version__ == metadata.version("pocketxl")
