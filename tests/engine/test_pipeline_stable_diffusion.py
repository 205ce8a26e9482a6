"""Stable Diffusion 1 and 2: diffusers' pictures, from folder and file alike; what they cannot be told is refused."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketxl.engine.errors import IncompatibleError, RequestError
from pocketxl.engine.pipeline import Pipeline
from pocketxl.export.build import BuildReport, build

from ..fixtures.builds import make_quick
from ..fixtures.command_line import run
from ..fixtures.stable_diffusion import KINDS, StableDiffusion, tiny_sd, write_sd_file
from ..tolerances import PICTURE_CHANGE, PICTURE_MEAN

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' schedulers
OPTIONS: dict[str, Any] = {"num_inference_steps": 5, "guidance_scale": 7.3, "height": 64, "width": 72, "seed": [3]}
LATENTS = np.random.default_rng(1).standard_normal((1, 4, 8, 9), dtype=np.float32)
SAYS: Mapping[str, Mapping[str, str]] = {"sd15": {}, "sd21": {"modelspec.prediction_type": "v"}}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("sd")
    return {kind: tiny_sd(root, kind) for kind in KINDS}


@pytest.fixture(scope="module")
def built(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, BuildReport]:
    root = tmp_path_factory.mktemp("engines")
    return {kind: build(folders[kind], root / kind, recipe="fp32", calibration_size=64) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("sampler", "more"),
    [
        ("euler", {"negative_prompt": "blue sky"}),
        ("dpmpp_2m", {}),  # no negative prompt is an empty one here
        ("ddim", {"guidance_scale": 1.0}),
    ],
)
def test_equals_diffusers(
    kind: str, sampler: str, more: dict[str, Any], built: dict[str, BuildReport], folders: dict[str, Path]
) -> None:
    options = {**OPTIONS, **more, "sampler": sampler, "latents": LATENTS}
    with Pipeline.load(built[kind].folder, threads=1) as pipe:
        ours = pipe("a red cat", output_type="np", **options).images
        expected = StableDiffusion(folders[kind], kind)("a red cat", **options)
        assert np.abs(ours - expected).mean() <= PICTURE_MEAN
        other = pipe("a dog", output_type="np", **options).images
    assert np.abs(ours - other).mean() > PICTURE_CHANGE


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_file_gives_the_same_engine(
    kind: str, built: dict[str, BuildReport], folders: dict[str, Path], tmp_path: Path
) -> None:
    file = write_sd_file(folders[kind], tmp_path / "x.safetensors", SAYS[kind])
    report = build(file, tmp_path / "engine", recipe="fp32", calibration_size=64, config=folders[kind])
    assert report.manifest.digest == built[kind].manifest.digest
    assert report.manifest.models.family == kind


@pytest.mark.parametrize("kind", KINDS)
def test_eight_bits_reach_their_goals(kind: str, folders: dict[str, Path], tmp_path: Path) -> None:
    report = build(folders[kind], tmp_path / "engine", recipe="int8", calibration_size=64)
    assert {
        n: c.quality["relative_error"] <= (c.max_relative_error or 0) for n, c in report.manifest.components.items()
    } == dict.fromkeys(report.manifest.components, True)
    formats = report.manifest.components["base/unet"].formats
    eight = sum(len(names) for name, names in formats.items() if name.startswith("w8a8"))
    assert eight > sum(map(len, formats.values())) / 2
    assert report.manifest.quality["psnr_db"] >= 30


def test_what_only_sdxl_is_told_is_refused(built: dict[str, BuildReport]) -> None:
    pipe = Pipeline.load(built["sd15"].folder)
    for options, says in (
        ({"original_size": (64, 64)}, r"original_size is \(64, 64\), but only SDXL is told sizes; leave it out"),
        ({"crops_coords_top_left": (0, 8)}, "crops_coords_top_left"),
        ({"prompt_2": "a dog"}, "prompt_2 is 'a dog', but the model has one text encoder"),
        ({"negative_prompt_2": "a dog"}, "negative_prompt_2"),
    ):
        with pytest.raises(RequestError, match=says):
            pipe.request("a cat", **options)
    pipe.request("a cat", crops_coords_top_left=(0, 0), prompt_2="", refiner=True)


def test_settings_of_an_sdxl_picture_are_left_out(
    built: dict[str, BuildReport], tiny_engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, again = tmp_path / "made.png", tmp_path / "again.png"
    asked = ("--steps", "2", "--seed", "5", "--original-size", "128x128", "--prompt-2", "a dog", "--quiet")
    assert run(capsys, "generate", "a red cat", "--engine", tiny_engine, "-o", made, *asked).status == 0
    shown = run(capsys, "generate", "--like", made, "--engine", built["sd15"].folder, "-o", again)
    assert shown.status == 0, shown.err
    assert "left out, because it is unknown here: Refiner, Original size, Prompt 2" in shown.err


@pytest.mark.parametrize("target", ["cuda", "onnx-fp16"])
def test_heads_of_40_and_80_on_other_targets(
    target: str, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_quick(monkeypatch, tmp_path / "cache")
    if target == "cuda":
        with pytest.raises(IncompatibleError, match=r"heads of 40, 80 numbers; target cuda has kernels for 64: build"):
            build(folders["sd15"], tmp_path / "engine", target=target, calibration_size=64)
        assert not (tmp_path / "engine").exists()
        return
    report = build(folders["sd15"], tmp_path / "engine", target=target, calibration_size=64)
    assert report.manifest.components["base/unet"].quality["relative_error"] < 0.01
