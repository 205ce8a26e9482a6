"""A damaged engine is never called up to date: what is broken is built again, and nothing else."""

import os
from pathlib import Path
from typing import Any

import pytest

from pocketxl.engine.folder.manifest import read_manifest, verify
from pocketxl.export.build import build
from pocketxl.export.reference import gate

from ..fixtures.builds import components_made
from ..fixtures.command_line import files, run

pytestmark = pytest.mark.usefixtures("quick_builds")


def flip(file: Path) -> None:
    """Change one bit, and nothing that a directory shows."""
    times, data = file.stat(), bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def differing(engine: Path, whole: dict[str, bytes]) -> list[str]:
    now = files(engine)
    return sorted(name for name in {*now, *whole} if now.get(name) != whole.get(name))


def test_only_what_is_broken_is_built_again_and_the_bytes_are_those_of_a_fresh_build(
    tiny_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One engine through all of it, because each build costs seconds."""
    base, engine = tiny_folders["base"], tmp_path / "engine"
    options: dict[str, Any] = {"recipe": "int8"}
    build(base, engine, **options)
    whole = files(engine)

    def no_gate(*_: Any) -> Any:
        pytest.fail("the gate ran, although the bytes are those that it has measured")

    with monkeypatch.context() as patch:  # the pictures' figures stay true
        patch.setattr(gate, "short_run", no_gate)
        flip(engine / "text_encoder/model.onnx.data")
        flip(engine / "tokenizer/vocab.json")
        (engine / "vae_decoder/model.onnx").unlink()
        assert run(capsys, "verify", engine).status == 6
        with components_made() as made:
            report = build(base, engine, **options)
        assert made == ["text_encoder", "vae_decoder"]
        assert not report.cached
        named = " ".join(report.reasons)
        for name in ("text_encoder/model.onnx.data", "tokenizer/vocab.json", "vae_decoder/model.onnx"):
            assert name in named
        assert differing(engine, whole) == []

    with monkeypatch.context() as patch:
        patch.setattr(gate, "short_run", no_gate)
        flip(engine / "base/unet/model.onnx")
        with components_made() as made:
            build(base, engine, **options)
        assert made == ["base/unet"]
        assert differing(engine, whole) == []

    flip(engine / "base/unet/sample.npz")  # a sample makes the gate hold the engine to it
    with components_made() as made:
        build(base, engine, **options)
    assert (made, differing(engine, whole)) == ([], [])

    command = ("build", base, "-o", engine, "--recipe", "int8", "--quiet")
    with components_made() as made:
        shown = run(capsys, *command, "--force", "--threads", "1")
    assert (shown.status, len(made)) == (0, len(read_manifest(engine).components))
    assert len(shown.out.splitlines()) == 1
    assert verify(engine).unknown == ()
    assert "up to date" in run(capsys, *command).out
    assert list(tmp_path.glob(".engine*")) == []


def test_an_engine_whose_description_is_damaged_is_built_again(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    build(tiny_folders["base"], tmp_path / "engine", recipe="fp32")
    whole = files(tmp_path / "engine")
    flip(tmp_path / "engine/engine.json")
    report = build(tiny_folders["base"], tmp_path / "engine", recipe="fp32")
    assert "engine.json" in report.reasons[0]
    assert differing(tmp_path / "engine", whole) == []
