"""Stable Diffusion 1 and 2: both layouts hold the same model, whatever else is in the file."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders import single_file_utils
from safetensors.torch import load_file, save_file
from torch import Tensor

from pocketxl.engine.architecture import TextOutput
from pocketxl.engine.errors import IncompatibleError
from pocketxl.engine.models.conditioner import Conditioner
from pocketxl.engine.models.unet import UNet
from pocketxl.engine.progress import Silent
from pocketxl.engine.sampling.levels.settings import PredictionType
from pocketxl.export.checkpoint.marks import Noise
from pocketxl.export.checkpoint.open import Checkpoint, open_checkpoint
from pocketxl.export.checkpoint.settings import BUNDLED, read_settings
from pocketxl.export.job import open_as, prepare
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.targets import find_target

from ...fixtures.stable_diffusion import KINDS, tiny_sd, write_sd_file

SAYS: Mapping[str, Mapping[str, str]] = {"sd15": {}, "sd21": {"modelspec.prediction_type": "v"}}
PARAMETERS = {"sd15": 859_520_964, "sd21": 865_910_724}
"""Of the public U-Nets."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("sd")
    return {kind: tiny_sd(root, kind) for kind in KINDS}


def digests(checkpoint: Checkpoint) -> dict[str, str]:
    return {name: weights.digest() for name, weights in checkpoint.components.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_file_is_the_folder(kind: str, folders: dict[str, Path], tmp_path: Path) -> None:
    folder = open_checkpoint(folders[kind])
    assert folder.kind == kind
    file = open_checkpoint(write_sd_file(folders[kind], tmp_path / "x.safetensors", SAYS[kind]), config=folders[kind])
    assert digests(file) == digests(folder)
    for name in ("kind", "unet_architecture", "text_encoder_architectures", "vae_architecture", "scheduler_config"):
        assert getattr(file, name) == getattr(folder, name), name
    assert not folder.force_zeros_for_empty_prompt
    (text,) = folder.text_encoder_architectures.values()
    assert (text.output, text.pooled) == (TextOutput.LAST_NORMED, False)


@pytest.mark.parametrize("kind", KINDS)
def test_every_tensor_is_the_one_that_diffusers_reads(kind: str, folders: dict[str, Path], tmp_path: Path) -> None:
    file = write_sd_file(folders[kind], tmp_path / "x.safetensors", SAYS[kind])
    ours, tensors = open_checkpoint(file, config=folders[kind]), load_file(file)
    config = json.loads((folders[kind] / "unet/config.json").read_text())
    text = single_file_utils
    width = SimpleNamespace(config=SimpleNamespace(hidden_size=64))
    expected: dict[str, dict[str, Tensor]] = {
        "unet": text.convert_ldm_unet_checkpoint(dict(tensors), config),
        "text_encoder": text.convert_ldm_clip_checkpoint(dict(tensors))
        if kind == "sd15"
        else text.convert_open_clip_checkpoint(width, dict(tensors), prefix="cond_stage_model.model."),
    }
    for component, theirs in expected.items():
        weights = ours.weights(component)
        for name in weights:
            tensor = theirs[name]
            assert torch.equal(weights.tensor(name), tensor.reshape(weights.shape(name))), name


@pytest.mark.parametrize("kind", KINDS)
def test_the_bundled_configurations_are_the_public_models(kind: str) -> None:
    settings = read_settings(BUNDLED / kind)
    config = json.loads((BUNDLED / kind / "unet/config.json").read_text())
    with torch.device("meta"):
        theirs = UNet2DConditionModel.from_config(config).state_dict()
        modules = (UNet(settings.unet_architecture), Conditioner(settings.unet_architecture))
    ours = {name: tensor.numel() for module in modules for name, tensor in module.state_dict().items()}
    assert ours == {name: tensor.numel() for name, tensor in theirs.items()}
    assert sum(ours.values()) == PARAMETERS[kind]


@pytest.mark.parametrize(
    ("asked", "size"), [(PredictionType.V_PREDICTION, 768), (PredictionType.EPSILON, 512)], ids=["v", "epsilon"]
)
def test_a_file_of_version_2_must_say_what_it_predicts(
    asked: PredictionType, size: int, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """768 and 512 pixels, as the public ones: without the bundled configuration's widths, since the file is small."""
    file = write_sd_file(folders["sd21"], tmp_path / "x.safetensors")
    with pytest.raises(IncompatibleError, match=r"says nowhere what it predicts.*--prediction-type"):
        open_checkpoint(file)
    bundled = tmp_path / "configs"
    shutil.copytree(folders["sd21"], bundled / "sd21", ignore=shutil.ignore_patterns("*.safetensors"))
    config = bundled / "sd21/unet/config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "sample_size": 96}))
    monkeypatch.setattr("pocketxl.export.checkpoint.open.BUNDLED", bundled)
    found = open_checkpoint(file, noise=Noise(prediction_type=asked))
    assert (found.native_size, found.scheduler_config.prediction_type) == (size, asked)


def test_notes_of_another_version_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    for said, fits in (("stable-diffusion-v1", True), ("stable-diffusion-v2-768-v", False), ("sdxl_base_v1-0", False)):
        file = write_sd_file(folders["sd15"], tmp_path / "x.safetensors", {"ss_base_model_version": said})
        if fits:
            assert open_checkpoint(file, config=folders["sd15"]).kind == "sd15"
        else:
            with pytest.raises(IncompatibleError, match=r"its tensors are those of Stable Diffusion 1.x"):
                open_checkpoint(file, config=folders["sd15"])


def test_a_trainer_may_leave_the_beginning_of_names_away(folders: dict[str, Path], tmp_path: Path) -> None:
    file = write_sd_file(folders["sd15"], tmp_path / "x.safetensors")
    short = {name.replace("transformer.text_model.", "transformer."): t for name, t in load_file(file).items()}
    save_file(short, tmp_path / "short.safetensors")
    found = open_checkpoint(tmp_path / "short.safetensors", config=folders["sd15"])
    assert digests(found) == digests(open_checkpoint(folders["sd15"]))


def test_what_does_not_go_together_is_refused_in_words(
    folders: dict[str, Path], tiny_folders: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(IncompatibleError, match=r"is Stable Diffusion 1.x; a refiner goes on from SDXL's latents"):
        prepare(
            open_as(folders["sd15"], "base", None),
            open_as(tiny_folders["refiner"], "refiner", None),
            target=find_target("cpu"),
            recipe=RECIPES["fp32"],
            calibration_size=None,
            progress=Silent(),
        )
