"""The original SDXL layout, held to diffusers' own single-file converters: their names and values are ours."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders import single_file_utils
from safetensors.torch import load_file, save_file
from torch import Tensor

from pocketxl.engine.errors import IncompatibleError
from pocketxl.engine.original_names import unet_places
from pocketxl.engine.stored.header import StoredTensor, read_header
from pocketxl.export.checkpoint.families import FAMILIES
from pocketxl.export.checkpoint.original_layout import UNET, map_components, map_unet
from pocketxl.export.checkpoint.settings import BUNDLED, read_settings

from ...fixtures.checkpoints import tiny_checkpoint
from ...fixtures.networks import unet_pair
from ...fixtures.original_layout import original_unet, original_vae, write_single_file

KINDS = ("base", "refiner")
CLIP = FAMILIES["base"].text_encoders["text_encoder"].original
OPEN_CLIP = {kind: FAMILIES[kind].text_encoders["text_encoder_2"].original for kind in KINDS}


def stored(shape: tuple[int, ...] = (1,)) -> StoredTensor:
    return StoredTensor(path=Path("file"), dtype="float16", shape=shape, offset=0, itemsize=2)


def config_of(folder: Path, component: str) -> dict[str, Any]:
    """A component's configuration as the folder has it."""
    config: dict[str, Any] = json.loads((folder / component / "config.json").read_text())
    return config


def theirs(file: Path, folder: Path, kind: str) -> dict[str, dict[str, Tensor]]:
    """What diffusers reads from a single file, by component."""
    tensors = load_file(file)
    settings = read_settings(folder)
    width = SimpleNamespace(
        config=SimpleNamespace(hidden_size=settings.text_encoder_architecture("text_encoder_2").hidden_size)
    )
    result = {
        "unet": single_file_utils.convert_ldm_unet_checkpoint(dict(tensors), config_of(folder, "unet")),
        "vae": single_file_utils.convert_ldm_vae_checkpoint(dict(tensors), config_of(folder, "vae")),
        "text_encoder_2": single_file_utils.convert_open_clip_checkpoint(width, dict(tensors), prefix=OPEN_CLIP[kind]),
    }
    if kind == "base":
        result["text_encoder"] = single_file_utils.convert_ldm_clip_checkpoint(dict(tensors))
        result["text_encoder"].pop("text_model.embeddings.position_ids")
    return result


@pytest.mark.parametrize("kind", KINDS)
def test_every_tensor_is_the_one_that_diffusers_reads(
    kind: str, tiny_files: dict[str, Path], tiny_folders: dict[str, Path]
) -> None:
    file, folder = tiny_files[kind], tiny_folders[kind]
    ours = map_components(read_header(file).tensors, read_settings(folder), file)
    for component, expected in theirs(file, folder, kind).items():
        assert ours[component].names() == sorted(expected), component
        for name, tensor in expected.items():
            assert torch.equal(ours[component].tensor(name), tensor), name


@pytest.mark.parametrize("kind", KINDS)
def test_names_and_shapes_of_the_public_models_are_those_of_diffusers(kind: str) -> None:
    """At full size, without values."""
    settings = read_settings(BUNDLED / kind)
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(config_of(BUNDLED / kind, "unet")).state_dict()
        vae = AutoencoderKL.from_config(config_of(BUNDLED / kind, "vae")).state_dict()
    original = original_unet(unet, settings.unet_architecture) | original_vae(vae, settings.vae_architecture)
    converted: Mapping[str, Tensor] = single_file_utils.convert_ldm_unet_checkpoint(
        dict(original), config_of(BUNDLED / kind, "unet")
    )
    assert {n: t.shape for n, t in converted.items()} == {n: t.shape for n, t in unet.items()}
    converted = single_file_utils.convert_ldm_vae_checkpoint(dict(original), config_of(BUNDLED / kind, "vae"))
    assert {n: t.shape for n, t in converted.items()} == {n: t.shape for n, t in vae.items()}
    named = map_unet(
        {n.removeprefix(UNET): stored(tuple(t.shape)) for n, t in original.items() if n.startswith(UNET)},
        settings.unet_architecture,
        Path("file"),
    )
    assert {n: s.shape for n, s in named.items()} == {n: tuple(t.shape) for n, t in unet.items()}


def without(part: str) -> Any:
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if part not in name}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            without("middle_block.1.transformer_blocks.1."),
            r"lacks model.diffusion_model.middle_block.1.transformer_blocks.1",
        ),
        (without("output_blocks.1.2.conv"), r"lacks model.diffusion_model.output_blocks.1.2.conv"),
        (lambda t: t | {f"{UNET}input_blocks.9.0.in_layers.0.weight": torch.ones(1)}, "input_blocks.9.*no place"),
        (lambda t: t | {f"{UNET}middle_block.1.transformer_blocks.2.norm1.bias": torch.ones(1)}, "no place"),
        (
            lambda t: t | {f"{OPEN_CLIP['base']}transformer.resblocks.0.attn.in_proj_bias": torch.ones(9)},
            "in_proj_bias",
        ),
    ],
)
def test_file_of_another_build_is_refused_with_the_fix(
    change: Any, says: str, tiny_files: dict[str, Path], tiny_folders: dict[str, Path], tmp_path: Path
) -> None:
    file = tmp_path / "other.safetensors"
    save_file(change(load_file(tiny_files["base"])), file)
    with pytest.raises(IncompatibleError, match=says) as error:
        map_components(read_header(file).tensors, read_settings(tiny_folders["base"]), file)
    assert "--config FOLDER" in str(error.value)


def test_sixteen_bit_values_survive_unchanged(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path, "refiner", torch.bfloat16)
    file = write_single_file(folder, tmp_path / "file.safetensors")
    ours = map_components(read_header(file).tensors, read_settings(folder), file)["vae"]
    expected = load_file(folder / "vae/diffusion_pytorch_model.safetensors")
    assert all(torch.equal(ours.tensor(name), tensor) for name, tensor in expected.items())
    assert {ours.dtype(name) for name in ours} == {"bfloat16"}


def test_a_pruned_u_net_has_depths_of_its_own_and_one_resnet_in_the_middle() -> None:
    """SSD-1B's shape; ComfyUI's `transformer_depth_middle` of -1."""
    places = unet_places(unet_pair("pruned").architecture)
    assert {old.split(".")[1] for old in places if old.startswith("middle_block.")} == {"0"}
    depths: dict[str, int] = {}
    for old in places:
        block, found, _ = old.partition(".1.transformer_blocks.")
        depths[block] = depths.get(block, 0) + bool(found)
    assert [n for block, n in depths.items() if block.startswith("input_blocks.") and n] == [2, 2, 1, 3]
    assert [n for block, n in depths.items() if block.startswith("output_blocks.") and n] == [3, 1, 2, 2, 1, 1]
