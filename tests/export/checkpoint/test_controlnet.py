"""ControlNets in the forms in which people have them, and what is none for SDXL."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pocketxl.engine.errors import IncompatibleError, IntegrityError, StorageError
from pocketxl.export.checkpoint.controlnet import open_controlnet

from ...fixtures.controlnets import tiny_controlnet, write_controlnet, write_original

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_controlnet(tmp_path_factory.mktemp("controlnet"))


def changed(folder: Path, to: Path, **options: Any) -> Path:
    """The same with other options in its configuration; None takes one away."""
    to.mkdir()
    config = json.loads((folder / "config.json").read_text()) | options
    (to / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    (to / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes())
    return to


@pytest.mark.parametrize("prefix", ["control_model.", ""])
def test_a_single_file_in_the_original_layout_is_the_same(folder: Path, tmp_path: Path, prefix: str) -> None:
    expected = open_controlnet(folder)
    file = write_original(tiny_controlnet(), expected.architecture, tmp_path / "canny.safetensors", prefix)
    found = open_controlnet(file, config=folder / "config.json")
    assert found.architecture == expected.architecture
    assert found.weights.digest() == expected.weights.digest()


def test_a_single_file_in_diffusers_layout_is_the_same(folder: Path) -> None:
    expected, found = open_controlnet(folder), open_controlnet(folder / WEIGHTS, config=folder)
    assert (found.architecture, found.weights.digest()) == (expected.architecture, expected.weights.digest())


def test_a_single_file_without_a_configuration_has_that_of_sdxl(folder: Path) -> None:
    with pytest.raises(IncompatibleError, match=r"does not fit its configuration: .* give its config.json"):
        open_controlnet(folder / WEIGHTS)


def test_the_bundled_configuration_is_that_of_published_controlnets() -> None:
    """The numbers of diffusers/controlnet-canny-sdxl-1.0, whose first parameters are 320 wide, its middle 1280."""
    from pocketxl.engine.companion import residuals
    from pocketxl.export.checkpoint.configuration import JsonFile, read_json
    from pocketxl.export.checkpoint.controlnet_configuration import controlnet_architecture
    from pocketxl.export.checkpoint.settings import BUNDLED

    path = BUNDLED / "controlnet" / "config.json"
    architecture = controlnet_architecture(JsonFile(data=read_json(path), path=path))
    widths = [tensor.shape[1] for tensor in residuals(architecture)]
    assert widths == [320, 320, 320, 320, 640, 640, 640, 1280, 1280, 1280]
    assert (architecture.pooled_dim, architecture.cross_attention_dim) == (1280, 2048)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "of SD 1.5": ({"addition_embed_type": None, "cross_attention_dim": 768}, "a ControlNet for Stable Diffusion 1.x"),
    "no union": ({"_class_name": "ControlNetUnionModel", "num_trans_channel": 64, "num_proj_channel": 64}, "it has no"),
    "a U-Net": ({"_class_name": "UNet2DConditionModel"}, "is no ControlNet that PocketXL builds"),
    "of other colours": ({"controlnet_conditioning_channel_order": "bgr"}, "'rgb' is allowed"),
    "of pooled conditions": ({"global_pool_conditions": True}, "global_pool_conditions is True"),
    "with hints of another size": ({"conditioning_embedding_out_channels": [8, 16, 24]}, "a list of 4"),
    "with fewer layers than it has": ({"layers_per_block": 2}, "lacks"),
    "with other options": ({"class_embed_type": "timestep"}, "class_embed_type"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_another_one_is_refused(folder: Path, tmp_path: Path, case: str) -> None:
    options, words = REFUSED[case]
    with pytest.raises(IncompatibleError) as caught:
        open_controlnet(changed(folder, tmp_path / "changed", **options))
    assert words in str(caught.value)


FILES = {
    "of SD 1.5": ("controlnet_cond_embedding.conv_in.weight", (16, 3, 3, 3), "Stable Diffusion 1.x"),
    "a LoRA": ("lora_unet_x.lora_up.weight", (4, 4), "looks like a LoRA"),
    "an LLLite": ("lllite_unet_x.weight", (4, 4), "LLLite"),
    "a T2I adapter": ("adapter.body.0.resnets.0.block1.weight", (4, 4), "a T2I adapter"),
    "an IP-Adapter": ("ip_adapter.1.to_k_ip.weight", (4, 4), "an IP-Adapter"),
    "a whole model": ("model.diffusion_model.input_blocks.0.0.weight", (4, 4), "a whole model"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_of_another_kind_is_called_what_it_is(tmp_path: Path, case: str) -> None:
    name, shape, words = FILES[case]
    tensors = {name: torch.zeros(shape)}
    if case == "of SD 1.5":
        tensors["down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"] = torch.zeros(320, 768)
    save_file(tensors, tmp_path / "file.safetensors")
    with pytest.raises(IncompatibleError) as caught:
        open_controlnet(tmp_path / "file.safetensors")
    assert words in str(caught.value)


def test_a_missing_a_truncated_and_a_pickled_file(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="does not exist"):
        open_controlnet(tmp_path / "nowhere")
    cut = changed(folder, tmp_path / "cut")
    (cut / WEIGHTS).write_bytes((cut / WEIGHTS).read_bytes()[:-100])
    with pytest.raises(IntegrityError):
        open_controlnet(cut)
    (tmp_path / "canny.bin").write_bytes(b"PK\x03\x04")
    with pytest.raises(IntegrityError):
        open_controlnet(tmp_path / "canny.bin")


def test_a_layer_too_many_is_named(folder: Path, tmp_path: Path) -> None:
    more = changed(folder, tmp_path / "more")
    tensors = load_file(more / WEIGHTS) | {"down_blocks.7.resnets.0.conv1.weight": torch.zeros(4)}
    save_file(tensors, more / WEIGHTS)
    with pytest.raises(IncompatibleError, match=r"down_blocks\.7\.resnets\.0\.conv1\.weight"):
        open_controlnet(more)
