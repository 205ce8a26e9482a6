"""float8 and float64 checkpoints give the numbers that are in them: exactly, or the nearest float32."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pocketxl.export.checkpoint.open import open_checkpoint
from pocketxl.export.components import assemble
from pocketxl.export.graph.master import attach, export_master

from ...fixtures.original_layout import write_single_file

FORMATS = (torch.float8_e4m3fn, torch.float8_e5m2, torch.float64)


@pytest.fixture(params=FORMATS, ids=str)
def folder(request: pytest.FixtureRequest, tiny_folders: dict[str, Path], tmp_path: Path) -> Path:
    """A base stored in that format; float64 has digits that float32 has not."""
    folder = Path(shutil.copytree(tiny_folders["base"], tmp_path / "base"))
    for file in folder.rglob("*.safetensors"):
        tensors = {name: tensor.double() * (1 + 2**-30) for name, tensor in load_file(file).items()}
        save_file({name: tensor.to(request.param) for name, tensor in tensors.items()}, file)
    return folder


def test_every_initializer_is_torchs_own_cast(folder: Path, tmp_path: Path) -> None:
    """From a folder and from a single file, whose fused and transposed matrices are of these types too."""
    single = write_single_file(folder, tmp_path / "single.safetensors")
    expected = {}
    for name in ("unet", "vae", "text_encoder", "text_encoder_2"):
        for key, tensor in load_file(next((folder / name).glob("*.safetensors"))).items():
            key = key if not name.startswith("text") or key.startswith("text_") else f"text_model.{key}"
            expected[name, key] = tensor.to(torch.float32)
    for checkpoint in (open_checkpoint(folder), open_checkpoint(single, config=folder)):
        assembly = assemble(checkpoint, None, lambda _, part: part)
        for name, component in assembly.components.items():
            weights = component.weights
            model = attach(export_master(name, component.module, component.spec, dtype=torch.float32), weights)
            part = component.source.removeprefix("base.")
            for key in weights:
                value = model.graph.initializers[key].const_value
                assert value is not None
                np.testing.assert_array_equal(value.numpy(), expected[part, key].numpy())


def test_both_forms_have_one_digest(folder: Path, tmp_path: Path) -> None:
    single = open_checkpoint(write_single_file(folder, tmp_path / "single.safetensors"), config=folder)
    for component, weights in open_checkpoint(folder).components.items():
        assert single.weights(component).digest() == weights.digest()
