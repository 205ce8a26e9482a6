"""A VAE from another place: every form of it is the same one, and a checkpoint needs none of its own beside it."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from pocketxl.engine.errors import IncompatibleError, IntegrityError, StorageError
from pocketxl.engine.progress import Silent
from pocketxl.export.checkpoint.open import Checkpoint, open_checkpoint
from pocketxl.export.checkpoint.original_layout import VAE
from pocketxl.export.checkpoint.other_vae import find_vae
from pocketxl.export.checkpoint.settings import BUNDLED, read_settings
from pocketxl.export.job import open_as, prepare
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.targets import find_target

from ...fixtures.checkpoints import randomize
from ...fixtures.original_layout import original_vae, write_single_file


@pytest.fixture
def other(tiny_folders: dict[str, Path], tmp_path: Path) -> Path:
    """Another VAE of the same size in a folder as `save_pretrained` writes it, with a scaling factor of its own."""
    module = AutoencoderKL.from_pretrained(tiny_folders["base"] / "vae", scaling_factor=0.25)
    randomize(module, seed=5)
    module.half().save_pretrained(tmp_path / "other")
    return tmp_path / "other"


def original(folder: Path, vae: Path, out: Path, prefix: str = "") -> Path:
    """The VAE in `vae` as a file in the original layout."""
    tensors = load_file(vae / "diffusion_pytorch_model.safetensors")
    names = original_vae(tensors, read_settings(folder).vae_architecture)
    save_file({name.replace(VAE, prefix, 1): tensor.contiguous() for name, tensor in names.items()}, out)
    return out


def without_vae(folder: Path, out: Path) -> Path:
    return Path(shutil.copytree(folder, out, ignore=shutil.ignore_patterns("vae")))


def values(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    weights = checkpoint.weights("vae")
    return {name: weights.tensor(name) for name in weights}


def test_every_form_is_the_same_vae(other: Path, tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    base = tiny_folders["base"]
    expected = load_file(other / "diffusion_pytorch_model.safetensors")
    whole = tmp_path / "whole"
    shutil.copytree(other, whole / "vae")
    sources = [
        other,
        whole,
        other / "diffusion_pytorch_model.safetensors",
        original(base, other, tmp_path / "bare.safetensors"),
        original(base, other, tmp_path / "prefixed.SFT", VAE),
    ]
    for source in sources:
        checkpoint = open_checkpoint(base, vae=source)
        found = values(checkpoint)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
        assert checkpoint.vae_architecture.scaling_factor == (0.25 if source in (other, whole) else 0.13025)
        assert checkpoint.weights("unet").digest() == open_checkpoint(base).weights("unet").digest()


def test_another_checkpoints_vae_is_taken(tiny_files: dict[str, Path], tiny_folders: dict[str, Path]) -> None:
    base = tiny_folders["base"]
    there = open_checkpoint(base, vae=tiny_files["refiner"])
    assert there.weights("vae").digest() == open_checkpoint(base).weights("vae").digest()


def test_a_checkpoint_without_one_is_opened(other: Path, tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    bare = without_vae(tiny_folders["base"], tmp_path / "bare")
    with pytest.raises(IntegrityError, match=r"has no VAE .* --vae FILE"):
        open_checkpoint(bare)
    assert open_checkpoint(bare, vae=other).vae_architecture.scaling_factor == 0.25
    file = write_single_file(tiny_folders["base"], tmp_path / "whole.safetensors")
    save_file({n: t for n, t in load_file(file).items() if not n.startswith(VAE)}, tmp_path / "half.safetensors")
    with pytest.raises(IncompatibleError, match=r"base without a VAE .* --vae FILE"):
        open_checkpoint(tmp_path / "half.safetensors", config=tiny_folders["base"])
    opened = open_checkpoint(tmp_path / "half.safetensors", config=tiny_folders["base"], vae=other)
    assert opened.weights("vae").digest() == open_checkpoint(bare, vae=other).weights("vae").digest()


def test_a_file_is_described_by_the_checkpoint_or_by_the_public_models(tmp_path: Path) -> None:
    (tmp_path / "vae.safetensors").touch()
    vae = find_vae(tmp_path / "vae.safetensors")
    assert vae.config_beside(None) == vae.config_beside(tmp_path) == BUNDLED / "base/vae/config.json"
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae/config.json").touch()
    assert vae.config_beside(tmp_path) == tmp_path / "vae/config.json"


def test_sources_that_are_none(other: Path, tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    base = tiny_folders["base"]
    with pytest.raises(StorageError, match=r"--vae takes a \.safetensors file"):
        open_checkpoint(base, vae=tmp_path / "nothing")
    with pytest.raises(IntegrityError, match="pickle"):
        open_checkpoint(base, vae=tmp_path / "vae.pt")
    with pytest.raises(IntegrityError, match=r"config.json is missing"):
        open_checkpoint(base, vae=tmp_path)
    (tmp_path / "vae.onnx").touch()
    with pytest.raises(IncompatibleError, match=r"no .safetensors file; --vae takes"):
        open_checkpoint(base, vae=tmp_path / "vae.onnx")
    with pytest.raises(IncompatibleError, match="holds no VAE"):
        open_checkpoint(base, vae=next((base / "text_encoder").glob("*.safetensors")))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"latent_channels": 16}))
    with pytest.raises(IncompatibleError, match="the VAE gives 16"):
        open_checkpoint(base, vae=other)


def test_it_is_part_of_the_build_key(
    other: Path, tiny_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POCKETXL_CACHE", str(tmp_path / "cache"))

    def parts(vae: Path | None) -> dict[str, str]:
        job = prepare(
            open_as(tiny_folders["base"], "base", None, vae=vae),
            None,
            target=find_target("cpu"),
            recipe=RECIPES["fp32"],
            calibration_size=None,
            progress=Silent(),
        )
        return dict(job.parts)

    own, others = parts(None), parts(other)
    assert {name for name in own if own[name] != others[name]} == {"weights of base.vae", "configuration"}
