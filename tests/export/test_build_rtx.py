"""A build for TensorRT for RTX, without a GPU: held to the reference by its stand-in."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pocketxl.engine.errors import (
    QualityError,
)
from pocketxl.engine.folder.manifest import read_manifest
from pocketxl.export.build import build
from pocketxl.export.components import Component
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.reference import measure
from pocketxl.export.targets.rtx import process

from ..fixtures.builds import SHORT, allowed
from ..fixtures.command_line import run

FP16 = RECIPES["fp16"]

pytestmark = pytest.mark.usefixtures("quick_builds")


def test_a_tensorrt_engine_builds_without_a_gpu_and_is_held_to_the_reference_by_its_stand_in(
    tiny_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One engine through all of it, because each component takes TensorRT seconds."""
    import ctypes.util

    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setitem(RECIPES, "fp16", replace(FP16, calibration=SHORT))  # with its own thresholds
    out = tmp_path / "engine"
    command = ("build", tiny_folders["base"], "-o", out, "--target", "rtx")
    held: list[str] = []
    real = measure.figures_of

    def stopped(path: Path, component: Component, *rest: Any, **options: Any) -> Any:
        if len(held) == 2:
            raise KeyboardInterrupt
        held.append(component.name)
        assert not path.is_relative_to(tmp_path / ".engine.building" / "engine")
        return real(path, component, *rest, **options)

    said: list[str] = []
    monkeypatch.setattr(process, "_TELL_EVERY", 0.1)
    with monkeypatch.context() as patch:  # it is interrupted before the third is held to the reference
        patch.setattr(measure, "figures_of", stopped)
        with pytest.raises(KeyboardInterrupt):
            build(tiny_folders["base"], out, target="rtx", progress=lambda event: said.append(event.detail))
    assert "text_encoder: compiling for 0 s" in said
    assert not out.exists()

    made: list[str] = []

    def noted(path: Path, component: Component, *rest: Any, **options: Any) -> Any:
        made.append(component.name)
        return real(path, component, *rest, **options)

    monkeypatch.setattr(measure, "figures_of", noted)
    shown = run(capsys, *command)
    assert shown.status == 0, shown.err
    assert made == ["base/conditioner", "base/unet", "vae_decoder", "vae_encoder"], (
        "figures of finished components are kept"
    )
    assert shown.out.count("of its stand-in in ONNX") == 6
    manifest = read_manifest(out)
    assert manifest.recipe == "fp16"
    for name, entry in manifest.components.items():
        assert entry.quality_of == "stand_in"
        assert 1e-6 < entry.quality["relative_error"] < FP16.max_relative_error[entry.spec.role], name
    assert not manifest.quality, "no pictures without the device"
    assert {p.suffix for p in out.glob("**/model.*")} == {".engine"}, "stand-ins are not published"
    assert not list(tmp_path.glob(".engine.building/aside"))

    assert run(capsys, "verify", out).status == 0
    shown = run(capsys, "inspect", out)
    assert "fp16 for rtx" in shown.out
    assert "for GPUs of the generations sm80, sm86, sm89, sm120, sm121" in shown.out
    shown = run(capsys, "plan", out)
    assert "predicted peak for 64x64" in shown.out
    assert re.search(r"6 GB +5\.25 GiB +yes +stays .* 1536x1536", shown.out), "as large as it was compiled for"
    assert "width is 1544, this engine takes 64 to 1536" in run(capsys, "plan", out, "--width", "1544").complaint()
    assert "tensorrt-rtx-cu12" in manifest.tools
    if ctypes.util.find_library("cuda") is None:
        shown = run(capsys, "generate", "a cat", "--engine", out, "-o", tmp_path / "x.png")
        assert shown.status == 3
        assert "GPU" in shown.complaint()


def test_a_stand_in_that_misses_its_threshold_fails_the_build(
    tiny_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setitem(RECIPES, "fp16", replace(RECIPES["fp16"], max_relative_error=allowed(FP16, 1e-9)))
    with pytest.raises(QualityError, match="text_encoder: recipe fp16 is off by"):
        build(tiny_folders["base"], tmp_path / "engine", target="rtx-sm89")
    assert not (tmp_path / "engine").exists()
