"""`pocketxl verify`: hashes with progress, and names what does not belong without calling it damage."""

import shutil
from pathlib import Path

import pytest

from pocketxl.engine.miniature import engine_folder

from ...fixtures.command_line import run


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return Path(shutil.copytree(engine_folder(None), tmp_path / "engine"))


def test_bytes_are_told_as_they_are_read(engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = run(capsys, "verify", engine, "--json")
    *progress, verified = shown.events()
    assert (shown.status, shown.err) == (0, "")
    assert {event["stage"] for event in progress} == {"verify"}
    assert progress[-1]["step"] == progress[-1]["total"]
    assert verified["bytes"] == progress[-1]["total"] + (engine / "engine.json").stat().st_size
    assert verified["unknown"] == []


def test_stray_files_are_named_and_no_reason_to_build_again(engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("note.txt", "base/unet/\x1b[31mred", ".DS_Store", "base/._unet"):
        (engine / name).write_bytes(b"x")
    shown = run(capsys, "verify", engine)
    assert (shown.status, shown.err) == (0, "")
    lines = shown.out.splitlines()
    assert lines[0] == f"'base/unet/\\x1b[31mred' in {engine} does not belong to the engine; nothing reads it"
    assert lines[1].startswith("'note.txt' in ")
    assert "every hash matches" in lines[2]
    assert run(capsys, "verify", engine, "--json").events()[-1]["unknown"] == ["base/unet/\x1b[31mred", "note.txt"]


def test_damage_is_named(engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = engine / "vae_decoder/model.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    shown = run(capsys, "verify", engine)
    assert shown.status == 6
    assert "vae_decoder/model.onnx" in shown.complaint()
    assert "pocketxl build" in shown.complaint()
