"""diffusers' `UNet2DConditionModel` configuration → the numbers of our U-Net."""

from collections.abc import Mapping
from typing import Any

from ...engine.architecture import SizeIds, UNetArchitecture
from ...engine.errors import IncompatibleError
from ...engine.topology import Depths
from .configuration import ALLOWED, MOST_CHANNELS, JsonFile, Option, shown

CHANNELS = (320, 640, 1280, 1280)
WIDTH = Option(default=1280, least=1, most=MOST_CHANNELS)
LAYERS = Option(default=2, least=1, most=64)
HEADS = Option(default=8, least=1, most=1024)
OPTIONS: Mapping[str, Option] = {
    "addition_time_embed_dim": Option(default=256, least=2, most=MOST_CHANNELS),
    "cross_attention_dim": WIDTH,
    "in_channels": Option(default=4, least=1, most=64),
    "norm_eps": Option(default=1e-5, least=1e-12, most=1.0),
    "norm_num_groups": Option(default=32, least=1, most=1024),
    "out_channels": Option(default=4, least=1, most=64),
    "projection_class_embeddings_input_dim": Option(default=2816, least=1, most=MOST_CHANNELS),
    "sample_size": Option(default=128, least=1, most=4096),
    "time_cond_proj_dim": Option(default=0, least=0, most=4096),
}
LISTS = (
    "attention_head_dim",
    "block_out_channels",
    "down_block_types",
    "layers_per_block",
    "num_attention_heads",
    "reverse_transformer_layers_per_block",
    "transformer_layers_per_block",
    "up_block_types",
)
BLOCKS = {
    "down": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
}
MIDDLE = "UNetMidBlock2DCrossAttn"
DEPTH = Option(default=1, least=0, most=64)
# An absent key has diffusers' default; the first value is the one to write down.
FIXED: Mapping[str, tuple[Any, ...]] = {
    "_class_name": ("UNet2DConditionModel",),
    "act_fn": ("silu",),
    "addition_embed_type": ("text_time",),
    "addition_embed_type_num_heads": (64,),
    "attention_type": ("default",),
    "center_input_sample": (False,),
    "class_embed_type": (None,),
    "class_embeddings_concat": (False,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "cross_attention_norm": (None,),
    "downsample_padding": (1,),
    "dropout": (0.0,),
    "dual_cross_attention": (False,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "flip_sin_to_cos": (True,),
    "freq_shift": (0,),
    "mid_block_only_cross_attention": (None, False),
    "mid_block_scale_factor": (1,),
    "mid_block_type": (MIDDLE, "UNetMidBlock2D"),
    "num_class_embeds": (None,),
    "only_cross_attention": (False,),
    "resnet_out_scale_factor": (1.0,),
    "resnet_skip_time_act": (False,),
    "resnet_time_scale_shift": ("default",),
    "time_embedding_act_fn": (None,),
    "time_embedding_dim": (None,),
    "time_embedding_type": ("positional",),
    "timestep_post_act": (None,),
    "upcast_attention": (False, None, True),  # a matter of 16-bit arithmetic only
    "use_linear_projection": (True,),
}
REQUIRED = ("_class_name", "addition_embed_type", "use_linear_projection")
# Without sizes and pooled text; what stands around transformer blocks may be 1×1 convolutions, which are linear too.
WITHOUT_SIZES: Mapping[str, tuple[Any, ...]] = {
    **FIXED,
    "addition_embed_type": (None,),
    "use_linear_projection": (False, True),
}
OF_SIZES = ("addition_time_embed_dim", "projection_class_embeddings_input_dim")


def unet_architecture(file: JsonFile, size_ids: SizeIds | None) -> UNetArchitecture:
    """The numbers of a U-Net with those size ids; `IncompatibleError` for what our modules cannot run."""
    data, added = file.data, "text_time" if size_ids is not None else None
    if data.get("addition_embed_type") != added:
        raise IncompatibleError(
            f"{file.path} is the U-Net of another model family: its addition_embed_type is "
            f"{shown(data.get('addition_embed_type'))} where {shown(added)} belongs to the text encoders beside it. "
            f"{ALLOWED}"
        )
    if size_ids is None:
        file.hold(WITHOUT_SIZES, lambda key: key in OPTIONS or key in LISTS, REQUIRED[:1])
        numbers = {key: 0 if key in OF_SIZES else file.number(OPTIONS, key) for key in OPTIONS}
    else:
        file.hold(FIXED, lambda key: key in OPTIONS or key in LISTS, REQUIRED)
        numbers = {key: file.number(OPTIONS, key) for key in OPTIONS}
    channels = file.whole_numbers("block_out_channels", CHANNELS, WIDTH)
    levels = len(channels)
    layers = file.per_level("layers_per_block", file.said("layers_per_block", LAYERS.default), levels, LAYERS)
    if len(set(layers)) > 1:
        raise file.refuse("layers_per_block", list(layers), "one number for all levels")
    # The number of heads, under diffusers' old name.
    key = "num_attention_heads" if data.get("num_attention_heads") is not None else "attention_head_dim"
    heads = file.per_level(key, file.said(key, HEADS.default), levels, HEADS)
    down, mid, up = _depths(file, levels, layers[0])
    file.divided("block_out_channels", channels, "norm_num_groups", numbers["norm_num_groups"])
    # Angles come in pairs of a cosine and a sine.
    angles = {name: numbers[name] for name in ("addition_time_embed_dim", "time_cond_proj_dim")}
    for name, width in {"block_out_channels": channels[0], **angles}.items():
        if width % 2:
            raise file.refuse(name, data.get(name), "an even number (of the first level)")
    if angles["time_cond_proj_dim"] == 2:  # the last of its frequencies has a place beside the first
        raise file.refuse("time_cond_proj_dim", 2, "an even number from 4, or none,")
    for level, width in enumerate(channels):
        attends = down[level] or up[levels - 1 - level] or level == levels - 1
        if attends and width % heads[level]:
            raise file.refuse(key, list(heads), f"a divisor of the level's width, {width} at level {level},")
    return UNetArchitecture(
        **numbers,
        block_out_channels=channels,
        transformer_layers=down,
        up_transformer_layers=up,
        mid_transformer_layers=mid,
        layers_per_block=layers[0],
        heads=heads,
        size_ids=size_ids,
    )


def _depths(file: JsonFile, levels: int, layers: int) -> tuple[Depths, int, Depths]:
    """Transformer blocks per level on the way down, in the middle, and per level on the way up; 0: no attention."""
    key, reverse = "transformer_layers_per_block", "reverse_transformer_layers_per_block"
    down_attends, up_attends = (_attends(file, direction, levels) for direction in ("down", "up"))
    down = _per_layer(file, key, file.said(key, 1), down_attends, layers)
    raw = file.said(key, 1)
    listed = [raw] * levels if type(raw) is int else list(raw)
    upwards = file.data.get(reverse)
    if upwards is None:
        if any(type(depths) is not int for depths in listed):
            raise file.refuse(reverse, upwards, "a list, since the way down has one number for each layer,")
        upwards = listed[::-1]
    up = _per_layer(file, reverse, upwards, up_attends, layers + 1)
    if file.said("mid_block_type", MIDDLE) != MIDDLE:
        return down, 0, up
    if type(listed[-1]) is not int or not listed[-1]:
        raise file.refuse(key, raw, "a whole number from 1 at the lowest level, which is the middle's too,")
    return down, listed[-1], up


def _per_layer(file: JsonFile, key: str, value: object, attends: list[bool], layers: int) -> Depths:
    """The depths under `key`, those of a level in one number where all its layers have the same."""
    values = [value] * len(attends) if type(value) is int else value
    if not isinstance(values, list | tuple) or len(values) != len(attends):
        raise file.refuse(key, value, f"{LAYERS}, or one for each of {len(attends)} levels,")
    found: list[int | tuple[int, ...]] = []
    for depths, crosses in zip(values, attends, strict=True):
        each = list(depths) if isinstance(depths, list | tuple) else [depths] * layers
        fits = len(each) == layers and all(DEPTH.allows(depth) and (depth or not crosses) for depth in each)
        if not fits:
            raise file.refuse(
                key, value, f"{LAYERS} for each level with attention, or for each of its {layers} layers,"
            )
        same = len(set(each)) == 1
        found.append((each[0] if same else tuple(each)) if crosses else 0)
    return tuple(found)


def _attends(file: JsonFile, direction: str, levels: int) -> list[bool]:
    """Whether the blocks of a direction have attention."""
    key, kinds = f"{direction}_block_types", [f"{p}{direction.title()}Block2D" for p in ("", "CrossAttn")]
    blocks = file.said(key, BLOCKS[direction])
    if not isinstance(blocks, list | tuple) or len(blocks) != levels or not all(block in kinds for block in blocks):
        raise file.refuse(key, blocks, f"a list of {levels} of {' and '.join(kinds)}")
    return [block == kinds[1] for block in blocks]
