"""An engine is held to the samples that it carries, and somebody on another machine is told that it can be."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketxl.engine import check as checking
from pocketxl.engine import check_engine
from pocketxl.engine.check import advice, relative_error
from pocketxl.engine.errors import IntegrityError
from pocketxl.engine.folder.manifest import FILE_NAME, Manifest, read_manifest
from pocketxl.engine.folder.samples import SAMPLE_FILE, encode_sample, read_sample
from pocketxl.engine.runners.ort import OrtDevice

from ..fixtures.command_line import run


def altered(engine: Path, folder: Path, **limits: Any) -> Path:
    """A copy of an engine whose manifest says other things of every component."""
    manifest = read_manifest(engine)
    components = {name: replace(entry, **limits) for name, entry in manifest.components.items()}
    return copied(engine, folder, replace(manifest, components=components))


def copied(engine: Path, folder: Path, manifest: Manifest) -> Path:
    for path in engine.rglob("*"):
        if path.is_file() and path.name != FILE_NAME:
            (folder / path.relative_to(engine)).parent.mkdir(parents=True, exist_ok=True)
            os.link(path, folder / path.relative_to(engine))
    (folder / FILE_NAME).write_text(manifest.to_json(), encoding="utf-8")
    return folder


@pytest.mark.parametrize("engine", ["tiny_engine", "tiny_int8_engine"])
def test_every_component_is_as_far_from_the_reference_as_the_build_found(
    engine: str, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(engine)
    manifest = read_manifest(folder)
    found = {check.name: check for check in check_engine(folder, threads=1)}
    assert set(found) == set(manifest.components)
    for name, check in found.items():
        assert check.passed
        assert check.limit == manifest.components[name].max_relative_error
        assert check.recorded == manifest.components[name].quality["relative_error"]
        # One of the calls that the build's figure is the mean of.
        assert check.relative_error <= max(3 * check.recorded, 1e-5)
        assert check.seconds > 0
        assert check.device_bytes is None
        assert check.device == manifest.measured_on != ""


def test_samples_are_whole_calls(tiny_engine: Path) -> None:
    manifest = read_manifest(tiny_engine)
    for name, entry in manifest.components.items():
        sample = read_sample(tiny_engine, manifest, name)
        assert sample is not None
        inputs, outputs = sample
        assert set(inputs) == {tensor.name for tensor in entry.spec.inputs}
        assert set(outputs) == {tensor.name for tensor in entry.spec.outputs}
    own = np.load(tiny_engine / "base" / "unet" / SAMPLE_FILE).files
    assert not any("key_values" in key for key in own), "they are the conditioner's outputs"


def test_an_engine_that_is_too_far_is_named_with_its_figures(
    tiny_int8_engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = altered(tiny_int8_engine, tmp_path, max_relative_error=1e-9)
    shown = run(capsys, "check", engine)
    assert shown.status == 7
    assert "base/unet" in shown.complaint()
    assert "at most 1e-09" in shown.complaint()
    assert "too far" in shown.out


def test_json_has_a_line_for_each_component(tiny_engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = run(capsys, "check", tiny_engine, "--json", "--threads", "1")
    assert shown.status == 0
    events = shown.events()
    assert {event["name"] for event in events} == set(read_manifest(tiny_engine).components)
    assert all(event["event"] == "checked" and event["passed"] for event in events)
    json.dumps(events, allow_nan=False)


def test_what_carries_no_samples_is_refused(
    tiny_engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = run(capsys, "check", altered(tiny_engine, tmp_path, sample=None))
    assert (shown.status, "build it again" in shown.complaint()) == (3, True)


def test_a_damaged_sample_is_found_before_it_is_read(
    tiny_engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = altered(tiny_engine, tmp_path)
    path = engine / "vae_decoder" / SAMPLE_FILE
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    path.write_bytes(content)
    shown = run(capsys, "check", engine)
    assert (shown.status, "was altered" in shown.complaint()) == (6, True)


def test_bytes_that_are_no_sample(tmp_path: Path, tiny_engine: Path) -> None:
    from pocketxl.engine.folder.samples import _read

    for content in (b"", b"PK\x03\x04", encode_sample({}, {})[:-8], b"\x93NUMPY"):
        path = tmp_path / SAMPLE_FILE
        path.write_bytes(content)
        with pytest.raises(IntegrityError, match="no sample"):
            _read(path)


def test_somebody_on_another_machine_is_told_once(
    tiny_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POCKETXL_CACHE", str(tmp_path / "cache"))
    assert advice(tiny_engine) is None
    monkeypatch.setattr(OrtDevice, "name", "another processor")
    hint = advice(tiny_engine)
    assert hint is not None
    assert f"pocketxl check {tiny_engine}" in hint
    assert advice(tiny_engine) is None


def test_a_check_that_passed_is_remembered(tiny_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POCKETXL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(OrtDevice, "name", "another processor")
    assert all(check.passed for check in check_engine(tiny_engine, threads=1))
    assert advice(tiny_engine) is None


def test_a_cache_that_cannot_be_written_changes_nothing(
    tiny_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("POCKETXL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(OrtDevice, "name", "another processor")
    assert advice(tiny_engine) is not None
    assert advice(tiny_engine) is not None


def test_generate_passes_the_hint_on(
    tiny_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checking, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(OrtDevice, "name", "another processor")
    command = ("generate", "a cat", "--engine", tiny_engine, "--steps", "1", "-o", f"{tmp_path}/cats/")
    assert "pocketxl check" in run(capsys, *command).err
    assert run(capsys, *command).err == ""


def test_the_error_is_that_of_the_worst_output() -> None:
    expected = {"a": np.array([3.0, 4.0]), "b": np.array([1.0])}
    assert relative_error(expected, {"a": np.array([3.0, 4.5]), "b": np.array([1.0])}) == pytest.approx(0.1)
    assert np.isnan(relative_error(expected, {"a": np.array([np.nan, 4.0]), "b": np.array([0.0])}))
    assert relative_error({"a": np.zeros(2)}, {"a": np.zeros(2)}) == 0.0
    assert relative_error({"a": np.zeros(2)}, {"a": np.ones(2)}) == np.inf
