"""A whole engine for onnx-fp16: base and refiner, from the checkpoint to the picture, on ONNX Runtime's processor."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from pocketxl.engine.check import advice, check_engine
from pocketxl.engine.folder.manifest import Manifest, read_manifest
from pocketxl.engine.pipeline import Pipeline
from pocketxl.engine.runners import ort_providers
from pocketxl.export.reference.parity import psnr_db

from ....fixtures.command_line import run
from ....tolerances import HALF_PICTURE_DB, SAME_PICTURE_DB
from .conftest import AsOnAGpu


@pytest.fixture(scope="module")
def manifest(half_engine: Path) -> Manifest:
    return read_manifest(half_engine)


def picture(engine: Path, provider: str | None = None) -> np.ndarray:
    with Pipeline.load(engine, threads=1, provider=provider) as pipe:
        output = pipe("a red apple", seed=7, num_inference_steps=4, width=64, height=64, output_type="np")
        found: np.ndarray = output.images[0]
        return found


def test_the_same_picture_as_in_float32(half_engine: Path, tiny_engine: Path) -> None:
    expected, found = picture(tiny_engine), picture(half_engine)
    assert not np.array_equal(found, expected)
    assert psnr_db(float(np.square(found - expected).mean()), 1.0) > HALF_PICTURE_DB


def test_bound_to_a_provider_s_memory_it_is_that_very_picture(
    half_engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = replace(ort_providers.CPU, name="bound", memory="cpu")
    monkeypatch.setattr(ort_providers, "PROVIDERS", {**ort_providers.PROVIDERS, "bound": bound})
    assert np.array_equal(picture(half_engine, "bound"), picture(half_engine, "cpu"))


def test_as_on_a_gpu_with_both_sides_of_guidance_in_one_call(half_engine: Path, as_on_a_gpu: AsOnAGpu) -> None:
    """All that a GPU's provider goes through, with the processor in its place."""
    with as_on_a_gpu() as provider:
        found = picture(half_engine, provider)
    assert psnr_db(float(np.square(found - picture(half_engine, "cpu")).mean()), 1.0) > SAME_PICTURE_DB


def test_the_manifest_says_what_was_measured(manifest: Manifest, half_engine: Path, tiny_engine: Path) -> None:
    assert (manifest.target, manifest.recipe) == ("onnx-fp16", "fp16")
    assert manifest.measured_on
    assert manifest.quality["psnr_db"] > HALF_PICTURE_DB
    for entry in manifest.components.values():
        assert entry.quality_of == "engine"
        assert 0 < entry.quality["relative_error"] < 1e-2
        assert set(entry.formats) == {ort_providers.HALF}
    sizes = [
        sum(entry.weight_bytes for entry in read_manifest(folder).components.values())
        for folder in (half_engine, tiny_engine)
    ]
    assert sizes[0] < 0.75 * sizes[1], "half, but for graphs and norms, which weigh in so small a model"


def test_plan_check_and_generate_take_a_provider(
    half_engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("plan", "check"):
        assert run(capsys, name, half_engine, "--provider", "cpu").status == 0
        assert "provider is 'abacus'" in run(capsys, name, half_engine, "--provider", "abacus").complaint()
    out = tmp_path / "apple.png"
    command = ("generate", "an apple", "--engine", half_engine, "-o", out, "--width", "64", "--height", "64")
    assert "provider is 'abacus'" in run(capsys, *command, "--provider", "abacus").complaint()
    assert run(capsys, *command, "--provider", "cpu", "--quiet").status == 0
    assert out.exists()


def test_a_check_is_of_the_provider_that_was_asked_for(
    half_engine: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its name is told as the device, and what passed on one provider says nothing of another."""
    monkeypatch.setenv("POCKETXL_CACHE", str(tmp_path))
    other = replace(ort_providers.CPU, name="other", identifier="OtherProvider", pool="host")
    monkeypatch.setattr(ort_providers, "PROVIDERS", {**ort_providers.PROVIDERS, "other": other})
    monkeypatch.setattr(ort_providers, "_available", lambda: ["CPUExecutionProvider", other.identifier])
    made = onnxruntime.InferenceSession

    def session(model: str, options: Any, *, providers: list[Any], enable_fallback: int) -> Any:
        found = made(model, options, providers=["CPUExecutionProvider"], enable_fallback=enable_fallback)
        monkeypatch.setattr(found, "get_providers", lambda: [other.identifier, "CPUExecutionProvider"])
        return found

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    hint = advice(half_engine, provider="other")
    assert hint is not None
    assert hint.startswith("this engine was measured on ")
    assert f"`pocketxl check {half_engine} --provider other` shows what other of ONNX Runtime" in hint
    found = list(check_engine(half_engine, threads=1, provider="other"))
    assert all(check.passed and check.device.startswith("other of ONNX Runtime") for check in found)
