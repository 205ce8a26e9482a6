"""What an engine is assembled from: which components base and refiner share."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from pocketxl.engine.errors import IntegrityError
from pocketxl.export.checkpoint.open import open_checkpoint
from pocketxl.export.components import Assembly, assemble
from pocketxl.export.job import models_of


def assembled(base: Path, refiner: Path) -> Assembly:
    return assemble(open_checkpoint(base), open_checkpoint(refiner), lambda model, part: model.weights(part).digest())


def test_a_text_encoder_is_shared_where_weights_and_configuration_are_equal(
    tiny_folders: dict[str, Path], tmp_path: Path
) -> None:
    assert assembled(tiny_folders["base"], tiny_folders["refiner"]).text_encoders["refiner"] == ("text_encoder_2",)
    refiner = Path(shutil.copytree(tiny_folders["refiner"], tmp_path / "refiner"))
    config = refiner / "text_encoder_2/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"layer_norm_eps": 1e-3}))
    own = assembled(tiny_folders["base"], refiner)
    assert own.text_encoders["refiner"] == ("refiner/text_encoder_2",)
    assert own.components["refiner/text_encoder_2"].configuration.layer_norm_eps == 1e-3


def without(folder: Path, *beginnings: str) -> Path:
    """The checkpoint whose VAE lacks the tensors whose names begin so."""
    path = folder / "vae/diffusion_pytorch_model.safetensors"
    save_file({name: tensor for name, tensor in load_file(path).items() if not name.startswith(beginnings)}, path)
    return folder


def test_an_engine_has_an_encoder_where_the_checkpoint_has_one(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    whole = assembled(tiny_folders["base"], tiny_folders["refiner"])
    assert "vae_encoder" in whole.components
    assert models_of(whole).encodes
    base = without(Path(shutil.copytree(tiny_folders["base"], tmp_path / "base")), "encoder.", "quant_conv.")
    half = assembled(base, tiny_folders["refiner"])
    assert set(whole.components) - set(half.components) == {"vae_encoder"}
    assert not models_of(half).encodes


def test_half_an_encoder_is_an_incomplete_checkpoint(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    base = without(Path(shutil.copytree(tiny_folders["base"], tmp_path / "base")), "encoder.mid_block.")
    with pytest.raises(IntegrityError, match=r"encoder\.mid_block"):
        _ = assembled(base, tiny_folders["refiner"]).components["vae_encoder"].weights
