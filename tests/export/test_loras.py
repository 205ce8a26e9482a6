"""LoRAs that are merged while an engine is built: the pictures of an engine that is given them as it runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from pocketxl.engine.errors import IncompatibleError, RequestError, StorageError
from pocketxl.engine.folder.manifest import read_manifest
from pocketxl.engine.pipeline import Pipeline
from pocketxl.export.build import build

from ..fixtures.command_line import run
from ..tolerances import PICTURE_MEAN

CALL: dict[str, Any] = {
    "prompt": "a red cat",
    "height": 64,
    "width": 96,
    "num_inference_steps": 3,
    "seed": 3,
    "output_type": "np",
}
LAYERS = {  # a product, a convolution, one that the conditioner has, and text encoders
    "unet": (
        "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
        "down_blocks.0.resnets.0.conv1",
        "mid_block.attentions.0.transformer_blocks.0.attn2.to_v",
    ),
    "text_encoder": ("text_model.encoder.layers.0.self_attn.q_proj",),
    "text_encoder_2": ("text_model.encoder.layers.0.mlp.fc1",),
}


@pytest.fixture(scope="module")
def lora(tiny_folders: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with alphas, and with a bias that has no place."""
    from pocketxl.export.checkpoint.open import open_checkpoint

    checkpoint, random, tensors = open_checkpoint(tiny_folders["base"]), np.random.default_rng(2), {}
    for part, layers in LAYERS.items():
        for layer in layers:
            out, taken, *kernel = checkpoint.weights(part).shape(f"{layer}.weight")
            stem = f"{part}.{layer}"
            tensors[f"{stem}.lora_A.weight"] = random.standard_normal((4, taken, *kernel), np.float32)
            ones = [1 for _ in kernel]
            tensors[f"{stem}.lora_B.weight"] = random.standard_normal((out, 4, *ones), np.float32) * np.float32(0.2)
            tensors[f"{stem}.alpha"] = np.array(2.0, np.float32)
    tensors["unet.conv_in.lora_B.bias"] = np.zeros(4, np.float32)
    path = tmp_path_factory.mktemp("lora") / "style.safetensors"
    save_file(tensors, path)
    return path


def test_pictures_are_those_of_the_plain_engine_with_them(
    tiny_folders: Mapping[str, Path], tiny_engine: Path, lora: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "engine"
    options: dict[str, Any] = {"refiner": tiny_folders["refiner"], "recipe": "fp32"}
    report = build(tiny_folders["base"], folder, loras={lora: 0.7}, **options)
    assert any("of its keys have no place here" in note for note in report.notes)
    assert "refiner/text_encoder_2" not in report.manifest.components, "shared, as without"
    with Pipeline.load(folder, threads=1) as pipe:
        found = pipe(**CALL).images
    with Pipeline.load(tiny_engine, threads=1) as pipe:
        plain, expected = pipe(**CALL).images, pipe(**CALL, loras={str(lora): 0.7}).images
    assert float(np.abs(found - expected).mean()) <= PICTURE_MEAN
    assert float(np.abs(found - plain).mean()) > 10 * PICTURE_MEAN
    again = build(tiny_folders["base"], folder, loras={lora: 0.7}, **options)
    assert again.cached
    assert again.notes == report.notes
    keys = read_manifest(tiny_engine).build_key
    assert {name for name, value in report.manifest.build_key.items() if keys[name] != value}, "another weight or file"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("missing.safetensors", "missing.safetensors does not exist"),
        ("{lora}:nan", "is nan; give a number"),
    ],
)
def test_what_cannot_be_merged_is_told_before_anything_is_built(
    text: str,
    error: str,
    tiny_folders: Mapping[str, Path],
    lora: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "engine"
    told = run(capsys, "build", tiny_folders["base"], "-o", out, "--lora", text.format(lora=lora)).complaint()
    assert error in told
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_family_is_refused(tiny_folders: Mapping[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "flux.safetensors"
    save_file({"transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight": np.zeros((4, 8), np.float32)}, path)
    with pytest.raises(IncompatibleError):
        build(tiny_folders["base"], tmp_path / "engine", loras={path: 1.0})
    with pytest.raises(StorageError):
        build(tiny_folders["base"], tmp_path / "engine", loras={tmp_path / "none.safetensors": 1.0})
    with pytest.raises(RequestError):
        build(tiny_folders["base"], tmp_path / "engine", loras={path: True})
