"""Configurations: the bundled ones are the public models', reduced ones are equal however they were written."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from pocketxl.engine.errors import IncompatibleError, IntegrityError
from pocketxl.engine.models.conditioner import Conditioner
from pocketxl.engine.models.unet import UNet
from pocketxl.engine.sampling.levels.config import SchedulerConfig
from pocketxl.export.checkpoint.configuration import read_json
from pocketxl.export.checkpoint.families import FAMILIES
from pocketxl.export.checkpoint.settings import BUNDLED, Settings, read_settings
from pocketxl.export.checkpoint.text_configuration import text_encoder_architecture
from pocketxl.export.checkpoint.unet_configuration import unet_architecture
from pocketxl.export.checkpoint.vae_configuration import vae_architecture

from ...fixtures.checkpoints import SCHEDULER, tiny_unet
from ...fixtures.networks import json_file

KINDS = ("base", "refiner")


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("kind", "count"), [("base", 2_567_463_684), ("refiner", 2_259_526_660)])
def test_bundled_unet_has_the_public_models_parameters(kind: str, count: int) -> None:
    with torch.device("meta"):
        assert parameters(UNet2DConditionModel.from_config(read_json(BUNDLED / kind / "unet/config.json"))) == count


@pytest.mark.parametrize("kind", KINDS)
def test_other_bundled_components_have_the_public_models_parameters(kind: str) -> None:
    folder = BUNDLED / kind
    with torch.device("meta"):
        assert parameters(AutoencoderKL.from_config(read_json(folder / "vae/config.json"))) == 83_653_863
        second = CLIPTextModelWithProjection(CLIPTextConfig(**read_json(folder / "text_encoder_2/config.json")))
        assert parameters(second) == 694_659_840
        if kind == "base":
            first = CLIPTextModel(CLIPTextConfig(**read_json(folder / "text_encoder/config.json")))
            assert parameters(first) == 123_060_480


def test_bundled_architectures() -> None:
    base, refiner = (read_settings(BUNDLED / kind) for kind in KINDS)
    assert base.architecture.unet.transformer_layers == (0, 2, 10)
    assert base.architecture.unet.up_transformer_layers == (10, 2, 0)
    assert refiner.architecture.unet.transformer_layers == (0, 4, 4, 0)
    assert refiner.architecture.unet.mid_transformer_layers == 4
    assert (base.architecture.unet.time_ids, refiner.architecture.unet.time_ids) == (6, 5)
    assert base.architecture.unet.pooled_dim == refiner.architecture.unet.pooled_dim == 1280
    assert base.architecture.text_encoders == ("text_encoder", "text_encoder_2")
    assert refiner.architecture.text_encoders == ("text_encoder_2",)
    assert base.architecture.force_zeros_for_empty_prompt
    assert not refiner.architecture.force_zeros_for_empty_prompt
    assert base.vae_architecture == refiner.vae_architecture
    assert base.vae_architecture.scaling_factor == 0.13025
    assert base.vae_architecture.downscale == 8
    assert base.text_encoder_architecture("text_encoder").projection_dim == 0
    assert base.text_encoder_architecture("text_encoder_2").projection_dim == 1280
    with pytest.raises(IncompatibleError, match="refiner has no text_encoder"):
        refiner.text_encoder_architecture("text_encoder")
    with pytest.raises(IncompatibleError, match="refiner has no tokenizer"):
        refiner.tokenizer_files("tokenizer")


@pytest.mark.parametrize("kind", KINDS)
def test_the_numbers_build_the_same_unet(kind: str, tiny_folders: dict[str, Path]) -> None:
    architecture = read_settings(tiny_folders[kind]).unet_architecture
    with torch.device("meta"):
        ours = {**Conditioner(architecture).state_dict(), **UNet(architecture).state_dict()}
        assert {n: t.shape for n, t in ours.items()} == {n: t.shape for n, t in tiny_unet(kind).state_dict().items()}


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_later_library_writes_has_the_same_numbers(kind: str) -> None:
    """diffusers and transformers of today write all their options into the public models' configs."""
    settings, family, folder = read_settings(BUNDLED / kind), FAMILIES[kind], BUNDLED / kind
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(read_json(folder / "unet/config.json"))
        vae = AutoencoderKL.from_config(read_json(folder / "vae/config.json"))
    written = json_file(json.loads(unet.to_json_string()))
    assert unet_architecture(written, family.size_ids) == settings.unet_architecture
    assert vae_architecture(json_file(json.loads(vae.to_json_string()))) == settings.vae_architecture
    for name, row in family.text_encoders.items():
        text = CLIPTextConfig(**read_json(folder / name / "config.json"))
        again = text_encoder_architecture(json_file(json.loads(text.to_json_string(use_diff=False))), row)
        assert again == settings.text_encoder_architecture(name)


def test_scheduler_is_read(tiny_folders: dict[str, Path]) -> None:
    assert read_settings(tiny_folders["base"]).scheduler_config == SchedulerConfig.of(SCHEDULER)


def read_changed(folder: Path, tmp_path: Path, file: str, **changes: Any) -> Settings:
    """The settings of a copy of `folder` in which entries of one JSON file are changed."""
    for source in folder.rglob("*"):
        if source.suffix in (".json", ".txt"):
            target = tmp_path / source.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    data = json.loads((tmp_path / file).read_text())
    (tmp_path / file).write_text(json.dumps(data | changes))
    return read_settings(tmp_path)


@pytest.mark.parametrize(
    ("file", "changes", "says"),
    [
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**9}, "num_train_timesteps 1000000000"),
        ("unet/config.json", {"addition_embed_type": None}, "U-Net of another model family"),
        ("unet/config.json", {"addition_embed_type": "text_image"}, "another model family"),
        ("unet/config.json", {"time_cond_proj_dim": 255}, "time_cond_proj_dim is 255; an even number"),
        ("unet/config.json", {"time_cond_proj_dim": 2}, "time_cond_proj_dim is 2; an even number from 4"),
        ("unet/config.json", {"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"}, "mid_block_type"),
        ("unet/config.json", {"transformer_layers_per_block": [0, [2, 4]]}, "each of its 1 layers"),
        (
            "unet/config.json",
            {"transformer_layers_per_block": [0, [2]]},
            "reverse_.* is None",
        ),
        ("unet/config.json", {"transformer_layers_per_block": [2, 0]}, "from 1 to 64 for each level with attention"),
        ("unet/config.json", {"transformer_layers_per_block": [1, 2, 10]}, "each of 2 levels"),
        ("unet/config.json", {"layers_per_block": [1, 2]}, "one number for all levels"),
        ("unet/config.json", {"block_out_channels": "64"}, "a list of 1 to 8 elements"),
        ("unet/config.json", {"norm_num_groups": 32.5}, "a whole number from 1 to 1024 is allowed"),
        ("unet/config.json", {"norm_eps": float("nan")}, "norm_eps is nan"),
        ("unet/config.json", {"addition_time_embed_dim": 0}, "addition_time_embed_dim is 0; a whole number from 2"),
        ("unet/config.json", {"block_out_channels": [64, -128]}, "-128"),
        ("unet/config.json", {"block_out_channels": [[64], 128]}, "each a whole number from 1"),
        ("unet/config.json", {"down_block_types": ["DownBlock2D", "AttnDownBlock2D"]}, "AttnDownBlock2D"),
        ("unet/config.json", {"a_new_option": "on"}, "a_new_option"),
        ("unet/config.json", {"in_channels": 8}, "takes 8 channels.*or 9 for inpainting"),
        ("unet/config.json", {"cross_attention_dim": 191}, "six ids"),
        ("unet/config.json", {"projection_class_embeddings_input_dim": 256}, "six ids"),
        ("unet/config.json", {"norm_num_groups": 24}, "multiple of norm_num_groups, which is 24"),
        ("unet/config.json", {"attention_head_dim": [1, 3]}, "128 at level 1"),
        ("unet/config.json", {"block_out_channels": [32] * 9}, "a list of 1 to 8 elements"),
        ("unet/config.json", {"attention_head_dim": 0}, "attention_head_dim is 0; a whole number from 1"),
        (
            "unet/config.json",
            {"transformer_layers_per_block": []},
            "_per_block is ..; a whole number",
        ),
        ("text_encoder/config.json", {"hidden_act": ""}, "hidden_act is ''; gelu or quick_gelu"),
        ("unet/config.json", {"layers_per_block": 65}, "from 1 to 64"),
        ("vae/config.json", {"norm_num_groups": 7}, "multiple of norm_num_groups, which is 7"),
        ("vae/config.json", {"block_out_channels": []}, "a list of 1 to 8 elements"),
        ("vae/config.json", {"out_channels": 4}, "from 3 to 3"),
        ("text_encoder/config.json", {"num_attention_heads": 3}, "multiple of num_attention_heads, which is 3"),
        ("text_encoder/config.json", {"num_hidden_layers": 1}, "from 2 to 64"),
        ("text_encoder/config.json", {"eos_token_id": 9999}, "below vocab_size"),
        ("text_encoder/config.json", {"vocab_size": True}, "vocab_size is True"),
        ("text_encoder/config.json", {"vocab_size": 20}, "has 527 tokens, its text encoder 20"),
        (
            "text_encoder/config.json",
            {"max_position_embeddings": 50},
            "prompts of 77 tokens, .* takes 50",
        ),
        (
            "text_encoder_2/config.json",
            {"eos_token_id": 5},
            "with token 526, its text encoder looks for 5",
        ),
        ("scheduler/scheduler_config.json", {"_class_name": "EDMEulerScheduler"}, "EDMEulerScheduler"),
        ("unet/config.json", {"sample_size": 4096}, "32768 pixels wide"),
        ("model_index.json", {"force_zeros_for_empty_prompt": "yes"}, "yes; true or false is allowed"),
        ("vae/config.json", {"latents_mean": [1, 2, 3, 4]}, "latents_mean"),
        ("vae/config.json", {"_class_name": "AutoencoderTiny"}, "AutoencoderTiny"),
        ("vae/config.json", {"up_block_types": ["UpDecoderBlock2D"]}, "up_block_types"),
        ("text_encoder/config.json", {"hidden_act": "relu"}, "relu"),
        ("text_encoder/config.json", {"model_type": "t5"}, "t5"),
        ("model_index.json", {"_class_name": "StableDiffusion3Pipeline"}, "StableDiffusion3Pipeline"),
        ("model_index.json", {"_class_name": "StableDiffusionPipeline"}, "U-Net of another model family"),
        ("model_index.json", {"text_encoder": [None, None]}, "six ids"),
        ("tokenizer/tokenizer_config.json", {"tokenizer_class": "T5Tokenizer"}, "T5Tokenizer"),
    ],
)
def test_what_our_modules_cannot_run_is_refused(
    tiny_folders: dict[str, Path], tmp_path: Path, file: str, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(IncompatibleError, match=says):
        read_changed(tiny_folders["base"], tmp_path, file, **changes)


def test_neutral_new_options_are_accepted(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tiny_folders["base"]
    changed = read_changed(folder, tmp_path, "unet/config.json", a_new_option=None, another=False, _name_or_path="x")
    assert changed == read_settings(folder)


@pytest.mark.parametrize(
    "file",
    [
        "model_index.json",
        "unet/config.json",
        "vae/config.json",
        "text_encoder/config.json",
        "text_encoder_2/config.json",
        "scheduler/scheduler_config.json",
        "tokenizer/vocab.json",
        "tokenizer/merges.txt",
        "tokenizer_2/tokenizer_config.json",
    ],
)
def test_missing_and_broken_files_are_named(tiny_folders: dict[str, Path], tmp_path: Path, file: str) -> None:
    read_changed(tiny_folders["base"], tmp_path, "model_index.json")
    (tmp_path / file).write_bytes(b"\xff[1")
    with pytest.raises(IntegrityError, match=str(tmp_path / file)):
        read_settings(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(IntegrityError, match=f"{tmp_path / file} is missing"):
        read_settings(tmp_path)
