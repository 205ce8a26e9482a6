"""What a file is for, or is, told from its keys and shapes alone: the sentence for one that does not fit."""

from collections.abc import Mapping

from ..stored.header import StoredTensor
from .keys import DOWN, UNET, read_key

Tensors = Mapping[str, StoredTensor]

_CONTEXTS = {
    768: "Stable Diffusion 1.5",
    1024: "Stable Diffusion 2",
    2048: "SDXL's base",
    1280: "SDXL's refiner",
    4096: "Kolors",
}
"""Width of the prompt that cross-attention reads → whose it is."""
_MARKS = (
    ("motion_modules", "AnimateDiff"),
    ("prior_unet", "Stable Cascade"),
    ("joint_blocks", "Stable Diffusion 3"),
    ("lora_te3", "Stable Diffusion 3 or Flux"),
    ("single_transformer_blocks", "Flux"),
    ("double_blocks", "Flux or HunyuanVideo"),
    ("single_blocks", "Flux or HunyuanVideo"),
    ("img_mlp", "Qwen-Image"),
    ("add_q_proj", "Stable Diffusion 3, Flux or Qwen-Image"),
    ("cross_attn", "Wan or Cosmos"),
    ("noise_refiner", "Lumina or Z-Image"),
    ("adaLN", "a diffusion transformer"),
)
"""A piece of a key → the family that has such keys."""
_OTHER_FILES = (
    ("lllite_", "a ControlNet-LLLite"),
    ("control_model.", "a ControlNet"),
    ("controlnet_", "a ControlNet"),
    ("ip_adapter.", "an IP-Adapter"),
    ("image_proj.", "an IP-Adapter"),
    ("emb_params", "a textual inversion embedding"),
    ("first_stage_model.", "a whole checkpoint, which `pocketxl build` makes an engine of"),
    ("conditioner.embedders.", "a whole checkpoint, which `pocketxl build` makes an engine of"),
    ("model.diffusion_model.input_blocks.0.0.weight", "a whole checkpoint, which `pocketxl build` makes an engine of"),
    ("conv_in.weight", "a whole U-Net, which `pocketxl build` takes as part of a checkpoint"),
    ("decoder.conv_out", "a VAE"),
)
"""How a key begins → what the file is instead of a LoRA."""


def made_for(tensors: Tensors) -> str | None:
    """The family that an adapter is for (`Stable Diffusion 1.5`, `SDXL's base`, `Flux`, …); None if nothing tells."""
    for mark, family in _MARKS:
        if any(mark in key for key in tensors):
            return family
    for key, stored in tensors.items():
        read = read_key(key)
        if read is None or read.place != UNET or not read.module.endswith(("attn2_to_k", "attn2_to_v")):
            continue
        if read.part in (DOWN, "hada_w1_b", "hada_w2_b", "diff") and len(stored.shape) >= 2:
            if stored.shape[1] in _CONTEXTS:
                return _CONTEXTS[stored.shape[1]]
            return f"a U-Net that reads prompts of width {stored.shape[1]}"
    return None


def instead(tensors: Tensors) -> str | None:
    """What a file that is no adapter of layers is; None if nothing tells."""
    for mark, what in _OTHER_FILES:
        if any(key.startswith(mark) for key in tensors):
            return what
    if {"clip_g", "clip_l"} & set(tensors):
        return "a textual inversion embedding"
    return None
