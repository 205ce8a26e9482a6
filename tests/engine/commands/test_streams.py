"""Consoles that lack characters, streams that are closed, full or have no reader: every command, as a process."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pocketxl.engine.picture.files import read_picture, write_picture

pytestmark = pytest.mark.skipif(os.name == "nt", reason="a POSIX shell")

PICTURE = np.zeros((8, 8, 3), np.uint8)
SETTINGS = {"Prompt": "日本 \x1b]0;owned\x07", "Steps": "1", "Seed": "2", "Size": "8x8", "Model": "\x9b31m"}


@pytest.fixture
def work(tmp_path: Path, tiny_engine: Path) -> Path:
    """A folder with an engine and a picture, both of names that few consoles can write."""
    (tmp_path / "日").symlink_to(tiny_engine)
    write_picture(tmp_path / "日.png", PICTURE, SETTINGS)
    return tmp_path


COMMANDS = {
    "generate": "generate 猫 --engine 日 -o 新.png --steps 1 --no-refiner --threads 1",
    "inspect": "inspect 日.png",
    "inspect engine": "inspect 日",
    "plan": "plan 日 --prompt 猫",
    "verify": "verify 日",
    "check": "check 日",
    "build": "build 日 -o 新",
    "mistake": "paint 日",
    "help": "--help",
}
STATUS = {"build": {3, 6}, "mistake": {2}}


def shell(work: Path, command: str, redirect: str = "", **environment: str) -> "subprocess.CompletedProcess[bytes]":
    line = f"exec {sys.executable} -m pocketxl.engine.commands.main {command} {redirect}"
    return subprocess.run(
        ["bash", "-c", line], cwd=work, env={**os.environ, **environment}, capture_output=True, check=False, timeout=120
    )


ENCODINGS = [*((name, "ascii") for name in COMMANDS), ("inspect", "cp1252:strict")]
CLOSED = [
    *((name, ">&- 2>&-") for name in COMMANDS),
    *((name, only) for name in ("generate", "inspect", "mistake") for only in (">&-", "2>&-")),
    ("generate", "<&- >&- 2>&-"),
]


@pytest.mark.parametrize(("name", "encoding"), ENCODINGS)
def test_a_console_that_lacks_characters_gets_escapes(name: str, encoding: str, work: Path) -> None:
    ended = shell(work, COMMANDS[name], PYTHONIOENCODING=encoding)
    assert ended.returncode in STATUS.get(name, {0}), ended.stderr
    assert b"Traceback" not in ended.stderr
    assert b"\x1b" not in ended.stdout + ended.stderr
    if name == "generate":
        assert b"\\u65b0.png" in ended.stdout
        assert (work / "新.png").is_file()


@pytest.mark.parametrize(("name", "redirect"), CLOSED)
def test_a_closed_stream_stays_silent_and_the_status_is_right(name: str, redirect: str, work: Path) -> None:
    ended = shell(work, COMMANDS[name], redirect)
    assert ended.returncode in STATUS.get(name, {0}), ended.stderr
    assert b"Traceback" not in ended.stderr
    assert (ended.stdout == b"") or ">&-" not in redirect.replace("2>&-", "")
    if name == "generate":
        assert read_picture(work / "新.png").parameters is not None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
@pytest.mark.parametrize("name", ["inspect", "plan"])
def test_output_that_cannot_be_written_is_an_error_of_storage(name: str, work: Path) -> None:
    ended = shell(work, COMMANDS[name], ">/dev/full")
    assert (ended.returncode, ended.stderr.splitlines()) == (5, [b"pocketxl: No space left on device"])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
def test_an_error_that_cannot_be_told_keeps_its_status(work: Path) -> None:
    assert shell(work, "inspect nowhere", "2>/dev/full").returncode == 5
    assert shell(work, "paint --json", ">/dev/full 2>/dev/full").returncode == 2


@pytest.mark.parametrize("name", ["inspect", "mistake"])
def test_a_reader_that_went_away_is_status_141(name: str, work: Path) -> None:
    command = [sys.executable, "-m", "pocketxl.engine.commands.main", *COMMANDS[name].split(), "--json"]
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as gone:
        ended = subprocess.run(command, cwd=work, stdout=gone, stderr=subprocess.PIPE, check=False, timeout=60)
    assert (ended.returncode, ended.stderr) == (141, b"")
