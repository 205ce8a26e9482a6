"""What a single file is, told by the names of its tensors."""

from pathlib import Path

import pytest

from pocketxl.engine.errors import IncompatibleError
from pocketxl.engine.stored.header import StoredTensor, read_header
from pocketxl.export.checkpoint.detect import detect
from pocketxl.export.checkpoint.families import FAMILIES
from pocketxl.export.checkpoint.original_layout import UNET, VAE

KINDS = ("base", "refiner")
CLIP = FAMILIES["base"].text_encoders["text_encoder"].original
OPEN_CLIP = {kind: FAMILIES[kind].text_encoders["text_encoder_2"].original for kind in KINDS}


def stored() -> StoredTensor:
    return StoredTensor(path=Path("file"), dtype="float16", shape=(1,), offset=0, itemsize=2)


@pytest.mark.parametrize("kind", KINDS)
def test_kind_is_told_by_the_text_encoders(kind: str, tiny_files: dict[str, Path]) -> None:
    assert detect(read_header(tiny_files[kind]).tensors, tiny_files[kind]) == kind


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ([f"{UNET}joint_blocks.0.x", f"{VAE}x", "text_encoders.clip_l.x"], "Stable Diffusion 3"),
        (["double_blocks.0.img_attn.qkv.weight"], "FLUX"),
        (["lora_unet_down_blocks_0.lora_up.weight"], "LoRA"),
        (["unet.down_blocks.0.attentions.0.to_q.lora_A.weight"], "LoRA"),
        (["control_model.x"], "ControlNet"),
        ([f"{UNET}input_blocks.0.0.weight"], "U-Net alone"),
        ([f"{VAE}decoder.conv_in.weight"], "VAE alone"),
        (["decoder.conv_in.weight", "encoder.conv_in.weight"], "VAE alone"),
        (["down_blocks.0.resnets.0.norm1.bias"], "diffusers folder"),
        ([f"{UNET}x", f"{VAE}x", f"{CLIP}x", f"{OPEN_CLIP['base']}x", "edm_mean"], "Playground"),
        (["input_blocks.0.0.weight", "time_embed.0.weight"], "U-Net alone"),
        ([f"{UNET}input_blocks.0.0.weight", f"{VAE}x"], "U-Net alone: .* text encoders"),
        ([f"{UNET}x", f"{CLIP}x", f"{OPEN_CLIP['base']}x", "edm_vpred.sigma_max"], "CosXL"),
        (["model.layers.0.self_attn.q_proj.weight"], "no image model"),
        ([], "no image model"),
    ],
)
def test_other_files_are_named_for_what_they_are(names: list[str], says: str) -> None:
    with pytest.raises(IncompatibleError, match=says) as error:
        detect({name: stored() for name in names}, Path("x.safetensors"))
    assert "SDXL base and refiner" in str(error.value)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (
            [f"{UNET}x", f"{CLIP}x", f"{OPEN_CLIP['base']}x"],
            r"is an SDXL base without a VAE \(first_stage_model.…\); .*--vae",
        ),
        ([f"{UNET}x", f"{OPEN_CLIP['refiner']}x"], "an SDXL refiner without a VAE"),
        (
            [f"{UNET}x", f"{VAE}x", f"{CLIP}x"],
            r"an SDXL base without a text encoder \(.*embedders.1.model",
        ),
        (
            [f"{UNET}x", f"{OPEN_CLIP['base']}x"],
            "an SDXL base without a text encoder .*embedders.0",
        ),
    ],
)
def test_what_is_lacking_is_said(names: list[str], says: str) -> None:
    with pytest.raises(IncompatibleError, match=says):
        detect({name: stored() for name in names}, Path("x.safetensors"))


@pytest.mark.parametrize(
    ("name", "kind"),
    [("cond_stage_model.transformer.text_model.x", "sd15"), ("cond_stage_model.model.ln_final.bias", "sd21")],
)
def test_stable_diffusion_is_told_by_its_text_encoder(name: str, kind: str) -> None:
    names = [f"{UNET}input_blocks.0.0.weight", f"{VAE}x", name, "model_ema.decay", "alphas_cumprod"]
    assert detect({name: stored() for name in names}, Path("x.safetensors")) == kind
    with pytest.raises(IncompatibleError, match=r"is Stable Diffusion \d.x without a VAE"):
        detect({name: stored() for name in (names[0], names[2])}, Path("x.safetensors"))


def test_a_vae_from_elsewhere_need_not_be_in_the_file() -> None:
    names = [f"{UNET}x", f"{CLIP}x", f"{OPEN_CLIP['base']}x"]
    assert detect({name: stored() for name in names}, Path("x.safetensors"), vae=False) == "base"
