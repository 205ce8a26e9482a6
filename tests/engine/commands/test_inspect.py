"""`pocketxl inspect` and `verify` on engines, pictures, and things that are neither."""

from pathlib import Path

import numpy as np
import pytest

from pocketxl.engine.folder.manifest import read_manifest
from pocketxl.engine.picture.files import write_picture

from ...fixtures.command_line import files, run


def test_an_engine_tells_its_components_and_figures(tiny_engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = read_manifest(tiny_engine)
    (event,) = run(capsys, "inspect", tiny_engine, "--json").events()
    assert set(event["components"]) == set(manifest.components)
    assert event["quality"] == dict(manifest.quality)
    text = run(capsys, "inspect", tiny_engine).out
    assert all(name in text for name in (*manifest.components, "fp32 for cpu", "relative error", "native 64x64"))
    assert event["digest"] == manifest.digest
    assert f"model hash {manifest.digest[:10]}" in text


def test_a_picture_has_no_layers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.png"
    write_picture(path, np.zeros((8, 8, 3), np.uint8), {"Prompt": "a", "Steps": "1", "Seed": "2", "Size": "8x8"})
    shown = run(capsys, "inspect", path, "--layers")
    assert shown.status == 2
    assert "leave --layers out" in shown.complaint()


def test_verify_counts_every_file(tiny_engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    *progress, event = run(capsys, "verify", tiny_engine, "--json").events()
    assert {told["event"] for told in progress} == {"progress"}
    found = files(tiny_engine)
    assert (event["files"], event["bytes"]) == (len(found), sum(map(len, found.values())))


@pytest.mark.parametrize("command", ["inspect", "verify", "plan"])
@pytest.mark.parametrize(
    ("what", "statuses"), [("missing", {5, 6}), ("empty folder", {6}), ("text file", {6})], ids=lambda v: str(v)
)
def test_what_is_no_engine_is_told_in_one_line(
    command: str, what: str, statuses: set[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "thing"
    if what == "empty folder":
        path.mkdir()
    elif what == "text file":
        path.write_text("dear")
    shown = run(capsys, command, path)
    assert shown.status in statuses
    assert str(path) in shown.complaint()


def test_text_of_a_foreign_picture_cannot_steer_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a\x1b[2J.png"
    hostile = {"Prompt": "cat \x1b]0;owned\x07\x9b31m\u202etac\rx", "Steps": "1", "Seed": "2", "Size": "8x8"}
    write_picture(path, np.zeros((8, 8, 3), np.uint8), hostile)
    shown = run(capsys, "inspect", path).out
    assert r"\x1b]0;owned\x07" in shown
    assert not set(shown) & set("\x1b\x07\x9b\r\u202e")
    path.write_bytes(b"no picture")
    assert "\\x1b[2J.png" in run(capsys, "inspect", path).complaint()
    assert "paint\\x1b[2J" in run(capsys, "paint\x1b[2J").complaint()
