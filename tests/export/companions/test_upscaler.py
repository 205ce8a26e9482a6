"""An upscaler's build: spandrel's own pictures, in every form of file; cached, resumed, described."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch

from pocketxl.engine.check import check_engine
from pocketxl.engine.errors import IncompatibleError, IntegrityError
from pocketxl.engine.folder.manifest import FILE_NAME, Manifest, read_manifest, verify
from pocketxl.engine.runners.base import call
from pocketxl.engine.upscaling.enlarge import unshuffled
from pocketxl.engine.upscaling.opened import open_upscaler
from pocketxl.export.companions.upscaler import build_upscaler
from pocketxl.export.publish.workspace import Workspace
from pocketxl.export.reference.steered import colours

from ...fixtures.builds import components_made
from ...fixtures.command_line import run
from ...fixtures.compare import relative_error
from ...fixtures.upscalers import compact, esrgan, through, write_upscaler
from ...tolerances import MODEL_RELATIVE

pytestmark = pytest.mark.usefixtures("quick_builds")


def built(module: Any, folder: Path) -> Path:
    return build_upscaler(write_upscaler(folder / "file.safetensors", module.state_dict()), folder / "out").folder


@pytest.mark.parametrize(
    "module",
    [
        lambda: esrgan(num_blocks=1, scale=2),
        lambda: esrgan(num_blocks=1, scale=4, in_nc=12, shuffle_factor=2, plus=True),
        lambda: compact(num_conv=1),
    ],
    ids=["ESRGAN", "Real-ESRGAN 2x", "compact"],
)
def test_what_it_gives_is_what_spandrel_gives(module: Any, tmp_path: Path) -> None:
    theirs = module()
    opened = open_upscaler(built(theirs, tmp_path), threads=1)
    picture = colours(24, 40)
    block = opened.known.architecture.unshuffle
    ours = call(opened.runner, {"tile": unshuffled(picture, block)})["larger"][0].transpose(1, 2, 0)
    assert ours.shape == (24 * opened.known.architecture.factor, 40 * opened.known.architecture.factor, 3)
    assert relative_error(torch.from_numpy(ours), torch.from_numpy(through(theirs, picture))) < MODEL_RELATIVE


def test_the_folder_is_whole_and_checks_itself(
    tiny_upscaler: tuple[Any, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_upscaler[1]
    manifest = read_manifest(folder)
    assert list(manifest.components) == ["upscaler"]
    assert not manifest.tokenizers
    assert manifest.components["upscaler"].quality["relative_error"] < MODEL_RELATIVE
    assert verify(folder).unknown == ()
    assert [check.passed for check in check_engine(folder, threads=1)] == [True]
    assert "upscaler 4x (ESRGAN, 1 blocks of 16), fp32 for cpu" in run(capsys, "inspect", folder).out
    assert run(capsys, "inspect", folder, "--json").events()[0]["models"] == []


def test_a_second_build_finds_it_done_and_a_damaged_one_is_mended(tmp_path: Path) -> None:
    source = write_upscaler(tmp_path / "file.safetensors", compact(num_conv=1).state_dict())
    first = build_upscaler(source, tmp_path / "out")
    assert not first.cached
    assert build_upscaler(source, tmp_path / "out").cached
    data = tmp_path / "out" / "upscaler" / "model.onnx.data"
    whole = data.read_bytes()
    data.write_bytes(whole[:-4])
    with components_made() as made:
        build_upscaler(source, tmp_path / "out")
    assert made == ["upscaler"]
    assert data.read_bytes() == whole


def test_one_that_was_stopped_goes_on(tmp_path: Path) -> None:
    source = write_upscaler(tmp_path / "file.safetensors", compact(num_conv=1).state_dict())
    with patch.object(Workspace, "publish", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        build_upscaler(source, tmp_path / "out")
    assert not (tmp_path / "out").exists(), "it appears when it is whole"
    with components_made() as made:
        build_upscaler(source, tmp_path / "out")
    assert verify(tmp_path / "out").unknown == ()
    assert made == [], "the component was finished"


def test_half_precision_is_taken_and_nan_is_not(tmp_path: Path) -> None:
    module = compact(num_conv=1).half()
    folder = built(module, tmp_path)
    assert read_manifest(folder).components["upscaler"].quality["relative_error"] < MODEL_RELATIVE
    module.state_dict()["body.0.weight"][0, 0, 0, 0] = np.nan
    (tmp_path / "other").mkdir()
    with pytest.raises(IntegrityError, match="NaN or Inf, of which no picture can be made"):
        built(module, tmp_path / "other")
    assert not (tmp_path / "other" / "out").exists()


def test_what_does_not_fit_together_is_refused(tmp_path: Path) -> None:
    state = dict(esrgan(num_blocks=1).state_dict())
    state["model.1.sub.0.RDB2.conv3.0.weight"] = torch.zeros(32, 7, 3, 3)
    with pytest.raises(IncompatibleError, match=r"body.0.rdb2.conv3.weight of upscaler has shape \(32, 7, 3, 3\)"):
        build_upscaler(write_upscaler(tmp_path / "odd.safetensors", state), tmp_path / "out")
    del state["model.1.sub.0.RDB2.conv3.0.weight"]
    with pytest.raises(IntegrityError, match=r"lacks 1 tensors.*body\.0\.rdb2\.conv3\.weight"):
        build_upscaler(write_upscaler(tmp_path / "less.safetensors", state), tmp_path / "out")
    with pytest.raises(IncompatibleError, match="built for cpu so far, not for rtx"):
        build_upscaler(tmp_path / "less.safetensors", tmp_path / "out", target="rtx")


@pytest.mark.parametrize("change", [{"scale": 3}, {"scale": 1 << 20}, {"unshuffle": 3}, {"growth": 0}, {"width": 0}])
def test_a_description_that_contradicts_itself_is_refused(
    change: dict[str, int], tiny_upscaler: tuple[Any, Path]
) -> None:
    text = (tiny_upscaler[1] / FILE_NAME).read_text()
    manifest = Manifest.from_json(text)
    assert manifest.companion is not None
    assert manifest.companion.upscaler is not None
    companion = replace(manifest.companion, upscaler=replace(manifest.companion.upscaler, **change))  # type: ignore[arg-type]
    with pytest.raises(IntegrityError, match="contradicts itself: companion"):
        Manifest.from_json(replace(manifest, companion=companion).to_json())
