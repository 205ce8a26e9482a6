"""diffusers' `ControlNetModel` configuration → the numbers of our ControlNet."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...engine.architecture import SizeIds
from ...engine.companion import HINT_LEVELS, ControlNetArchitecture
from ...engine.errors import IncompatibleError
from .configuration import MOST_CHANNELS, JsonFile, Option, shown
from .unet_configuration import unet_architecture

CLASS = "ControlNetModel"
UNIONS = ("ControlNetUnionModel", "ControlNetModel_Union")
"""What diffusers calls a ControlNet-Union, and what its authors did."""
KINDS, LAYERS = "num_control_type", "num_trans_layer"
OF_UNIONS: Mapping[str, Option] = {
    KINDS: Option(default=6, least=1, most=64),
    LAYERS: Option(default=1, least=0, most=16),
    "num_trans_channel": Option(default=320, least=1, most=MOST_CHANNELS),
    "num_proj_channel": Option(default=320, least=1, most=MOST_CHANNELS),
    "num_trans_head": Option(default=8, least=1, most=1024),
}
"""Heads say nothing: see `engine.models.union`."""
OTHERS: Mapping[int, str] = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x"}
"""Width of the text that a network reads → whose it is."""
HINT_WIDTHS = (16, 32, 96, 256)
WIDTHS = "conditioning_embedding_out_channels"
WIDTH = Option(default=16, least=1, most=MOST_CHANNELS)
# What a U-Net's configuration does not have, at the values that our modules can do.
OWN: Mapping[str, tuple[Any, ...]] = {
    "conditioning_channels": (3,),
    "controlnet_conditioning_channel_order": ("rgb",),
    "global_pool_conditions": (False,),
}
UPWARDS = {"DownBlock2D": "UpBlock2D", "CrossAttnDownBlock2D": "CrossAttnUpBlock2D"}


def controlnet_architecture(file: JsonFile) -> ControlNetArchitecture:
    """The numbers of a ControlNet for SDXL base; `IncompatibleError` for what our modules cannot run."""
    data = file.data
    # The first union was published as a plain one with a number more.
    union = data.get("_class_name") in UNIONS or data.get(KINDS) is not None
    if data.get("_class_name") not in (CLASS, *UNIONS):
        raise IncompatibleError(
            f"{file.path} is no ControlNet that PocketXL builds: its _class_name is {shown(data.get('_class_name'))}, "
            f"{CLASS!r} or {UNIONS[0]!r} is allowed"
        )
    if data.get("addition_embed_type") != "text_time":
        width = data.get("cross_attention_dim")
        family = OTHERS.get(width, "another model family") if isinstance(width, int) else "another model family"
        raise IncompatibleError(
            f"{file.path} is a ControlNet for {family}: its addition_embed_type is "
            f"{shown(data.get('addition_embed_type'))} where those for SDXL have 'text_time'; take one for SDXL"
        )
    for key, allowed in OWN.items():
        if data.get(key) is not None and data[key] not in allowed:
            raise file.refuse(key, data[key], repr(allowed[0]))
    widths = file.whole_numbers(WIDTHS, HINT_WIDTHS, WIDTH)
    if len(widths) != HINT_LEVELS:
        raise file.refuse(WIDTHS, list(widths), f"a list of {HINT_LEVELS}, so that pictures come to the latents' size,")
    down = data.get("down_block_types", list(UPWARDS))
    mirrored = (
        {"up_block_types": [UPWARDS.get(str(block), block) for block in reversed(down)]}
        if (isinstance(down, list))
        else {}
    )
    unet = {key: value for key, value in data.items() if key not in (*OWN, WIDTHS, *(OF_UNIONS if union else ()))}
    as_unet = replace(file, data={**unet, **mirrored, "_class_name": "UNet2DConditionModel"})
    found = unet_architecture(as_unet, SizeIds.SIZE_CROP_TARGET)
    if not union:
        return ControlNetArchitecture.of(found, hint_widths=widths)
    numbers = {key: file.number(OF_UNIONS, key) for key in OF_UNIONS}
    for key in ("num_trans_channel", "num_proj_channel"):
        if numbers[key] != found.block_out_channels[0]:
            raise file.refuse(key, numbers[key], f"the width of the first level, {found.block_out_channels[0]},")
    return ControlNetArchitecture.of(
        found, hint_widths=widths, control_types=numbers[KINDS], fuser_layers=numbers[LAYERS]
    )
