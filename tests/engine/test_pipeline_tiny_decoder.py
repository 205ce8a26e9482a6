"""`decoder="tiny"`: diffusers' picture with `AutoencoderTiny` in the VAE's place, and the VAE stays where it is."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny

from pocketxl.engine.errors import IncompatibleError, RequestError
from pocketxl.engine.pipeline import Pipeline
from pocketxl.engine.tiny import TINY_DECODER
from pocketxl.export.build import BuildReport, build

from ..fixtures.builds import components_made, make_quick
from ..fixtures.checkpoints import randomize
from ..fixtures.command_line import run
from ..tolerances import PICTURE_CHANGE, PICTURE_MEAN

OPTIONS: dict[str, Any] = {"num_inference_steps": 3, "seed": 3, "output_type": "np", "refiner": False}


@pytest.fixture(scope="module")
def taesd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    module = AutoencoderTiny(decoder_block_out_channels=(8,) * 4)
    randomize(module, seed=9)
    path = tmp_path_factory.mktemp("taesd")
    module.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def built(taesd: Path, tiny_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> BuildReport:
    engine = tmp_path_factory.mktemp("engine") / "fp32"
    return build(tiny_folders["base"], engine, recipe="fp32", calibration_size=32, tiny_decoder=taesd)


@pytest.fixture(scope="module")
def pipe(built: BuildReport) -> Pipeline:
    return Pipeline.load(built.folder, threads=1)


def test_it_is_the_picture_of_diffusers(pipe: Pipeline, taesd: Path) -> None:
    latents = pipe("a red cat", **{**OPTIONS, "output_type": "latent"}).images
    theirs = AutoencoderTiny.from_pretrained(taesd)
    with torch.no_grad():  # the pipelines of diffusers divide by its scaling factor, which is 1
        picture = theirs.decode(torch.from_numpy(latents) / theirs.config.scaling_factor).sample
    expected = (picture / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    for ours in (pipe("a red cat", decoder="tiny", **OPTIONS).images,
                 pipe.decode(latents, decoder="tiny", output_type="np")):  # fmt: skip
        assert np.abs(ours - expected).mean() <= PICTURE_MEAN
    assert np.abs(pipe("a red cat", **OPTIONS).images - expected).mean() > PICTURE_CHANGE


def test_the_vae_is_neither_loaded_nor_counted(built: BuildReport) -> None:
    with Pipeline.load(built.folder, threads=1) as pipe:
        pipe("a red cat", decoder="tiny", **OPTIONS)
        assert not pipe.runners["vae_decoder"].loaded
        plan = pipe.plan("a red cat", decoder="tiny")
        assert plan.phases[-1].component == TINY_DECODER
        assert "vae_decoder" not in plan.footprints


def test_its_figures_and_its_sample_are_those_of_its_own_module(built: BuildReport) -> None:
    entry = built.manifest.components[TINY_DECODER]
    assert entry.quality["relative_error"] < 1e-4
    assert entry.sample is not None


def test_adding_one_leaves_all_else_as_it_is(
    taesd: Path, tiny_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_quick(monkeypatch, tmp_path / "cache")
    without = build(tiny_folders["base"], tmp_path / "engine", recipe="fp32", calibration_size=32)
    assert TINY_DECODER not in without.manifest.components
    with components_made() as made:
        found = build(tiny_folders["base"], tmp_path / "engine", recipe="fp32", calibration_size=32, tiny_decoder=taesd)
    assert made == [TINY_DECODER]
    assert set(found.taken) == set(without.manifest.components)
    for name, entry in without.manifest.components.items():
        assert found.manifest.components[name].files == entry.files
    assert build(
        tiny_folders["base"], tmp_path / "engine", recipe="fp32", calibration_size=32, tiny_decoder=taesd
    ).cached


def test_the_settings_name_it_and_make_the_picture_again(
    built: BuildReport, tiny_engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, again, elsewhere = (tmp_path / f"{name}.png" for name in ("first", "again", "elsewhere"))
    asked = ("--steps", "2", "--seed", "5", "--decoder", "tiny", "--quiet")
    assert run(capsys, "generate", "a red cat", "--engine", built.folder, "-o", first, *asked).status == 0
    shown = run(capsys, "inspect", first)
    assert "VAE Decoder: TAESD" in shown.out
    assert run(capsys, "generate", "--like", first, "--engine", built.folder, "-o", again, "--quiet").status == 0
    assert first.read_bytes() == again.read_bytes()
    shown = run(capsys, "generate", "--like", first, "--engine", tiny_engine, "-o", elsewhere)
    assert shown.status == 0
    assert "left out, because it is unknown here: VAE Decoder TAESD" in shown.err


def test_an_engine_without_one_says_how_to_get_it(tiny_engine: Path) -> None:
    pipe = Pipeline.load(tiny_engine)
    with pytest.raises(RequestError, match="this engine has none; build it with --tiny-decoder"):
        pipe.request("a red cat", decoder="tiny")
    with pytest.raises(RequestError, match="decoder is 'taesd'; choose full or tiny"):
        pipe.request("a red cat", decoder="taesd")


def test_one_of_other_latents_is_refused_before_anything_is_built(
    tiny_folders: dict[str, Path], tmp_path: Path
) -> None:
    AutoencoderTiny(decoder_block_out_channels=(8,) * 4, latent_channels=16).save_pretrained(tmp_path / "taef1")
    config = json.loads((tmp_path / "taef1/config.json").read_text())
    assert config["latent_channels"] == 16
    with pytest.raises(IncompatibleError, match="tiny_decoder takes 16 channels"):
        build(tiny_folders["base"], tmp_path / "engine", tiny_decoder=tmp_path / "taef1")
    assert not (tmp_path / "engine").exists()
