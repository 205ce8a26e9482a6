"""A checkpoint whose VAE float16 cannot hold becomes an engine in float16 all the same."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pocketxl.engine.errors import QualityError
from pocketxl.engine.folder.manifest import read_manifest
from pocketxl.export import lowering
from pocketxl.export.build import build
from pocketxl.export.quantize.recipes import RECIPES

from ..fixtures.builds import SHORT
from ..fixtures.command_line import run
from ..fixtures.wide_vae import widen


@pytest.fixture
def wide(tiny_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny base with tensors a million times as large between the layers of its VAE; short builds."""
    monkeypatch.setitem(RECIPES, "fp16", replace(RECIPES["fp16"], calibration=SHORT))  # with its own thresholds
    return widen(Path(shutil.copytree(tiny_folders["base"], tmp_path / "wide")), 1e6)


def test_a_vae_beyond_the_range_of_half_builds(
    wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One engine through all of it: what is finished when a build fails is kept for the next."""
    pytest.importorskip("tensorrt_rtx")
    out = tmp_path / "engine"
    with monkeypatch.context() as patch:
        patch.setattr(lowering, "find_exponents", lambda places, largest: {})
        with pytest.raises(
            QualityError, match=r"vae_decoder: \d+ of its layers .* beyond 65504.*vae_decoder:decoder\."
        ):
            build(wide, out, target="rtx-sm89")
        patch.setattr(lowering, "check_range", lambda component, seen: None)
        with pytest.raises(QualityError, match="vae_decoder: recipe fp16 is off by nan"):
            build(wide, out, target="rtx-sm89")
    build(wide, out, target="rtx-sm89")
    components = dict(read_manifest(out).components)
    entry = components.pop("vae_decoder")
    assert entry.quality["relative_error"] < 2e-3  # 1e-2 is allowed
    assert {"decoder.conv_in", "decoder.mid_block.attentions.0.to_v"} < set(entry.halvings)
    encoder = components.pop("vae_encoder")
    assert encoder.quality["relative_error"] < 4e-3  # 1e-2 is allowed
    assert {"encoder.conv_in", "encoder.mid_block.attentions.0.to_v"} < set(encoder.halvings)
    assert not any(other.halvings for other in components.values())
    assert "tensors scaled by up to 2^" in run(capsys, "inspect", out).out


def test_onnx_fp16_makes_its_pictures(wide: Path, tmp_path: Path) -> None:
    """The whole engine runs here, so its pictures are held to the original's too."""
    manifest = build(wide, tmp_path / "engine", target="onnx-fp16").manifest
    entry = manifest.components["vae_decoder"]
    assert "decoder.conv_in" in entry.halvings
    assert entry.quality_of == "engine"
    assert entry.quality["relative_error"] < 2e-3  # 1e-2 is allowed
    assert manifest.quality["psnr_db"] > 50
    encoder = manifest.components["vae_encoder"]
    assert "encoder.conv_in" in encoder.halvings
    assert encoder.quality["relative_error"] < 4e-3  # 1e-2 is allowed


def test_floats_that_hold_it_are_left_alone(wide: Path, tmp_path: Path, quick_builds: None) -> None:
    manifest = build(wide, tmp_path / "engine", recipe="fp32").manifest
    assert not any(entry.halvings for entry in manifest.components.values())
    assert manifest.quality["psnr_db"] > 50
