"""Which model a single file holds, told by the names of its tensors; or what else it is."""

from collections.abc import Mapping
from pathlib import Path

from ...engine.errors import IncompatibleError
from .configuration import ALLOWED
from .families import FAMILIES
from .original_layout import UNET, VAE, Tensors

EDM = ("edm_mean", "edm_std", "edm_vpred.")
"""Marks of models with SDXL's tensors and other noise levels."""
PLAYGROUND = "Playground v2.5, which is trained in another noise parametrisation"
U_NET_ALONE = "a U-Net alone: a checkpoint that has its text encoders (conditioner. or cond_stage_model.) too is needed"
# Part of a tensor's name → what a file with such a name is. The first that is found counts.
OTHERS: Mapping[str, str] = {
    "lora_": "a LoRA adapter, not a whole model: merge it into its checkpoint first",
    ".lora": "a LoRA adapter, not a whole model: merge it into its checkpoint first",
    "control_model.": "a ControlNet",
    "controlnet_cond_embedding.": "a ControlNet",
    "adapter.body.": "a T2I adapter, which `pocketxl build-t2i-adapter` takes",
    "edm_vpred.": "CosXL or another model of EDM v-prediction, which is trained on other noise levels",
    "edm_mean": PLAYGROUND,
    "edm_std": PLAYGROUND,
    "joint_blocks.": "Stable Diffusion 3",
    "double_blocks.": "FLUX",
    "down_blocks.": "one component of a diffusers folder: give the folder that has its model_index.json",
    UNET: U_NET_ALONE,
    "input_blocks.": U_NET_ALONE,
    VAE: "a VAE alone: give it as --vae, beside a checkpoint",
    "decoder.": "a VAE alone: give it as --vae, beside a checkpoint",
    "text_model.": "a text encoder alone",
}


def detect(tensors: Tensors, source: Path, *, vae: bool = True) -> str:
    """The row of `FAMILIES`; `vae`: whether the file must have a VAE of its own.

    `IncompatibleError` says what is lacking, or what else the file looks like and what is allowed.
    """
    if _has(tensors, UNET) and not any(name.startswith(EDM) for name in tensors):
        for kind, family in FAMILIES.items():
            lacking = [row.original for row in family.text_encoders.values() if not _has(tensors, row.original)]
            if not lacking and (_has(tensors, VAE) or not vae):
                return kind
            if not lacking:
                raise IncompatibleError(f"{source} is {family.title} without a VAE ({VAE}…); give one with --vae FILE")
        _refuse_half(tensors, source)
    looks = (what for part, what in OTHERS.items() if any(part in name for name in tensors))
    raise IncompatibleError(
        f"{source} looks like {next(looks, 'no image model that PocketXL knows')}. {ALLOWED}, as a single file in the "
        "original layout or as a diffusers folder."
    )


def _refuse_half(tensors: Tensors, source: Path) -> None:
    """The error for a model of which one text encoder is there and another is not."""
    for family in FAMILIES.values():
        prefixes = [row.original for row in family.text_encoders.values()]
        lacking = [prefix for prefix in prefixes if not _has(tensors, prefix)]
        if 0 < len(lacking) < len(prefixes):
            raise IncompatibleError(
                f"{source} is {family.title} without a text encoder ({', '.join(lacking)}…); take a checkpoint that "
                "has it"
            )


def _has(tensors: Tensors, prefix: str) -> bool:
    return any(name.startswith(prefix) for name in tensors)
