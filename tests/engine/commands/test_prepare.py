"""`pocketxl prepare`: says what it wrote, and takes it away again."""

import re
import shutil
from pathlib import Path

import pytest

from pocketxl.engine import prepare
from pocketxl.engine.miniature import FOLDER
from pocketxl.engine.runners import processor
from pocketxl.engine.runners.processor import processor_facts

from ...fixtures.command_line import run


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if not processor_facts():
        pytest.skip("nothing is prepared where the system does not tell its processor")
    monkeypatch.setenv("POCKETXL_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(FOLDER, tmp_path / "engine", ignore=shutil.ignore_patterns("*.prepared")))


def test_bytes_and_seconds_of_every_component(engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = run(capsys, "prepare", engine, "--json")
    *events, last = [event for event in shown.events() if event["event"] != "progress"]
    assert shown.status == 0
    assert last["event"] == "prepared"
    assert len(events) == 4
    assert sorted(event["name"] for event in events) == last["components"]
    assert last["bytes"] == sum(event["bytes"] for event in events) > 0
    assert all(event["seconds"] > 0 and event["load_seconds_before"] > 0 for event in events)
    removed = run(capsys, "prepare", engine, "--remove", "--json").events()
    assert [(event["event"], event["bytes"]) for event in removed] == [("removed", last["bytes"])]


def test_people_are_told_what_it_is_good_for_and_how_it_goes_away(
    engine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = run(capsys, "prepare", engine).out.splitlines()
    assert "instead of" in lines[0]
    assert "prepare --remove" in lines[-1]
    assert "was prepared" in run(capsys, "prepare", engine).out
    assert re.search(r" [1-9]\d* MiB of prepared files were deleted$", run(capsys, "prepare", engine, "--remove").out)


def test_an_engine_of_other_runners_has_nothing_to_prepare(
    engine: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "open_runners", lambda *_: {"base/unet": object()})
    shown = run(capsys, "prepare", engine)
    assert shown.status == 0
    (line,) = shown.out.splitlines()
    assert "has nothing to prepare" in line
    assert run(capsys, "prepare", engine, "--remove").status == 0


def test_a_system_that_does_not_tell_its_processor_is_named(
    engine: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "_flags", frozenset)
    shown = run(capsys, "prepare", engine)
    assert shown.status == 0
    (line,) = shown.out.splitlines()
    assert "was not prepared: this system does not tell what its processor can do" in line


def test_a_folder_that_is_no_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = run(capsys, "prepare", tmp_path)
    assert shown.status == 6
    assert "not an engine folder" in shown.complaint()
