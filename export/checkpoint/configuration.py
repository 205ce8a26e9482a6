"""The JSON configurations of a checkpoint, reduced to what shapes an SDXL-family model, and the numbers in them.

diffusers and transformers write every option of their classes into a config, and another set in each version. Kept here
is what our own modules read, with the libraries' defaults filled in; every other option must be at the value that SDXL
has. So two checkpoints of the same model have equal configurations, and one that our modules cannot run is refused.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...engine.architecture import TextEncoderArchitecture, UNetArchitecture, VaeArchitecture
from ...engine.errors import IncompatibleError, IntegrityError, StorageError

Config = dict[str, Any]

UNET_DEFAULTS: Mapping[str, Any] = {
    "addition_time_embed_dim": 256,
    "attention_head_dim": 8,  # the number of heads, under diffusers' old name
    "block_out_channels": [320, 640, 1280, 1280],
    "cross_attention_dim": 1280,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "in_channels": 4,
    "layers_per_block": 2,
    "norm_eps": 1e-5,
    "norm_num_groups": 32,
    "out_channels": 4,
    "projection_class_embeddings_input_dim": 2816,
    "sample_size": 128,
    "transformer_layers_per_block": 1,
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
}
# An absent key has diffusers' default; the first value is the one to write down.
UNET_FIXED: Mapping[str, tuple[Any, ...]] = {
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
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "num_class_embeds": (None,),
    "only_cross_attention": (False,),
    "resnet_out_scale_factor": (1.0,),
    "resnet_skip_time_act": (False,),
    "resnet_time_scale_shift": ("default",),
    "time_cond_proj_dim": (None,),
    "time_embedding_act_fn": (None,),
    "time_embedding_dim": (None,),
    "time_embedding_type": ("positional",),
    "timestep_post_act": (None,),
    "upcast_attention": (False, None, True),  # a matter of 16-bit arithmetic only
    "use_linear_projection": (True,),
}
UNET_REQUIRED = ("_class_name", "addition_embed_type", "use_linear_projection")
PER_LEVEL = ("attention_head_dim", "layers_per_block", "transformer_layers_per_block")
"""A number for all levels, or a list with one for each."""
VAE_DEFAULTS: Mapping[str, Any] = {
    "block_out_channels": [64],
    "force_upcast": True,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 1,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 32,
    "scaling_factor": 0.18215,
}
VAE_FIXED: Mapping[str, tuple[Any, ...]] = {
    "_class_name": ("AutoencoderKL",),
    "act_fn": ("silu",),
    "latents_mean": (None,),
    "latents_std": (None,),
    "mid_block_add_attention": (True,),
    "shift_factor": (None, 0, 0.0),
    "use_post_quant_conv": (True,),
    "use_quant_conv": (True,),
}
TEXT_DEFAULTS: Mapping[str, Any] = {
    "bos_token_id": 49406,
    "eos_token_id": 49407,
    "hidden_act": "quick_gelu",
    "hidden_size": 512,
    "intermediate_size": 2048,
    "layer_norm_eps": 1e-5,
    "max_position_embeddings": 77,
    "num_attention_heads": 8,
    "num_hidden_layers": 12,
    "pad_token_id": 1,
    "projection_dim": 512,
    "vocab_size": 49408,
}
ALLOWED = "PocketXL builds SDXL base and refiner checkpoints and others of that family"


def read_json(path: Path) -> Config:
    """A JSON object from a file; `IntegrityError` when it is missing or unsound."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise IntegrityError(f"{path} is missing; fetch the checkpoint again.") from error
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{path} is not JSON; fetch the checkpoint again.") from error
    if not isinstance(data, dict):
        raise IntegrityError(f"{path} holds no JSON object; fetch the checkpoint again.")
    return data


def unet_config(data: Config, source: Path) -> Config:
    """diffusers' `UNet2DConditionModel` config, reduced; `IncompatibleError` for another family."""
    if data.get("addition_embed_type") != "text_time":
        raise IncompatibleError(
            f"{source} is the U-Net of {_family(data)}: its addition_embed_type is {data.get('addition_embed_type')!r} "
            f"where SDXL has 'text_time'. {ALLOWED}."
        )
    _check_fixed(data, UNET_FIXED, UNET_DEFAULTS, UNET_REQUIRED, source)
    config = _reduce(data, UNET_DEFAULTS, source)
    levels = len(config["block_out_channels"])
    heads = data.get("num_attention_heads") or config["attention_head_dim"]
    config["attention_head_dim"] = _per_level(heads, levels, "attention_head_dim", source)
    layers = _per_level(config["layers_per_block"], levels, "layers_per_block", source)
    if len(set(layers)) > 1:
        raise IncompatibleError(
            f"{source}: layers_per_block is {layers}; one number for all levels is allowed. {ALLOWED}."
        )
    config["layers_per_block"] = layers[0]
    depths = _per_level(config["transformer_layers_per_block"], levels, "transformer_layers_per_block", source)
    config["transformer_layers_per_block"] = depths
    backwards = data.get("reverse_transformer_layers_per_block") or depths[::-1]
    if _per_level(backwards, levels, "reverse_transformer_layers_per_block", source) != depths[::-1]:
        config["reverse_transformer_layers_per_block"] = backwards
    for direction in ("Down", "Up"):
        kinds = {f"{direction}Block2D": False, f"CrossAttn{direction}Block2D": True}
        blocks = config[f"{direction.lower()}_block_types"]
        if len(blocks) != levels or not all(block in list(kinds) for block in blocks):
            raise IncompatibleError(
                f"{source}: block types {blocks}; {levels} of {', '.join(kinds)} are allowed. {ALLOWED}."
            )
    return {**config, **{key: values[0] for key, values in UNET_FIXED.items() if key in UNET_REQUIRED}}


def vae_config(data: Config, source: Path) -> Config:
    """diffusers' `AutoencoderKL` config, reduced; `IncompatibleError` for another kind of VAE."""
    _check_fixed(data, VAE_FIXED, VAE_DEFAULTS, ("_class_name",), source)
    config = _reduce(data, VAE_DEFAULTS, source)
    levels = len(config["block_out_channels"])
    for direction, kind in (("down", "DownEncoderBlock2D"), ("up", "UpDecoderBlock2D")):
        blocks = data.get(f"{direction}_block_types", [kind])
        if blocks != [kind] * levels:
            raise IncompatibleError(
                f"{source}: {direction}_block_types are {blocks}; {levels} × {kind} is allowed. {ALLOWED}."
            )
        config[f"{direction}_block_types"] = blocks
    return {**config, "_class_name": "AutoencoderKL"}


def text_encoder_config(data: Config, source: Path) -> Config:
    """transformers' `CLIPTextConfig`, reduced; `IncompatibleError` for another text encoder."""
    if data.get("model_type", "clip_text_model") != "clip_text_model":
        raise IncompatibleError(f"{source} configures a {data['model_type']}; SDXL has CLIP text encoders. {ALLOWED}.")
    config = _reduce(data, TEXT_DEFAULTS, source)
    if config["hidden_act"] not in ("gelu", "quick_gelu"):
        raise IncompatibleError(
            f"{source}: hidden_act is {config['hidden_act']!r}; gelu and quick_gelu are allowed. {ALLOWED}."
        )
    return {**config, "model_type": "clip_text_model"}


def unet_architecture(config: Config, time_ids: int) -> UNetArchitecture:
    """The numbers of a reduced U-Net config."""
    depths = config["transformer_layers_per_block"]
    upwards = config.get("reverse_transformer_layers_per_block") or depths[::-1]
    down = ["CrossAttn" in kind for kind in config["down_block_types"]]
    up = ["CrossAttn" in kind for kind in config["up_block_types"]]
    return UNetArchitecture(
        in_channels=config["in_channels"],
        out_channels=config["out_channels"],
        block_out_channels=tuple(config["block_out_channels"]),
        transformer_layers=tuple(n if crosses else 0 for n, crosses in zip(depths, down, strict=True)),
        up_transformer_layers=tuple(n if crosses else 0 for n, crosses in zip(upwards, up, strict=True)),
        mid_transformer_layers=depths[-1],
        layers_per_block=config["layers_per_block"],
        heads=tuple(config["attention_head_dim"]),
        cross_attention_dim=config["cross_attention_dim"],
        addition_time_embed_dim=config["addition_time_embed_dim"],
        projection_class_embeddings_input_dim=config["projection_class_embeddings_input_dim"],
        norm_num_groups=config["norm_num_groups"],
        norm_eps=config["norm_eps"],
        sample_size=config["sample_size"],
        time_ids=time_ids,
    )


def text_encoder_architecture(config: Config, *, pooled: bool) -> TextEncoderArchitecture:
    """The numbers of a reduced text encoder config; `pooled` for the encoder with a projection."""
    return TextEncoderArchitecture(
        hidden_size=config["hidden_size"],
        projection_dim=config["projection_dim"] if pooled else 0,
        max_tokens=config["max_position_embeddings"],
    )


def vae_architecture(config: Config) -> VaeArchitecture:
    """The numbers of a reduced VAE config."""
    return VaeArchitecture(
        latent_channels=config["latent_channels"],
        scaling_factor=config["scaling_factor"],
        downscale=2 ** (len(config["block_out_channels"]) - 1),
    )


def _check_fixed(
    data: Config,
    fixed: Mapping[str, tuple[Any, ...]],
    known: Mapping[str, Any],
    required: tuple[str, ...],
    source: Path,
) -> None:
    """Every option that our modules do not have must be at SDXL's value."""
    elsewhere = ("num_attention_heads", "reverse_transformer_layers_per_block", "down_block_types", "up_block_types")
    shaped = {*known, *elsewhere}
    for key in required:
        if key not in data:
            raise IncompatibleError(f"{source} lacks {key}, which is {fixed[key][0]!r} for SDXL. {ALLOWED}.")
    for key, value in data.items():
        if key in fixed and value not in fixed[key]:
            raise IncompatibleError(f"{source}: {key} is {value!r} where SDXL has {fixed[key][0]!r}. {ALLOWED}.")
        if key not in fixed and key not in shaped and not key.startswith("_") and value not in (None, False):
            raise IncompatibleError(f"{source}: {key} = {value!r} is an option that SDXL does not have. {ALLOWED}.")


def _reduce(data: Config, defaults: Mapping[str, Any], source: Path) -> Config:
    """The entries that `defaults` lists, each of its default's type, and numbers above zero (token ids from zero)."""
    config: Config = {}
    for key, default in defaults.items():
        value = data[key] if data.get(key) is not None else default
        allowed = (int, list) if key in PER_LEVEL else (int, float) if type(default) is float else (type(default),)
        parts = value if isinstance(value, list) else [value]
        least = 0 if key.endswith("_token_id") else 1e-30
        sound = all(type(p) in (str, bool) or (type(p) in (int, float) and least <= p < 1e30) for p in parts)
        if type(value) not in allowed or not sound:
            names = " or ".join(kind.__name__ for kind in allowed)
            raise IncompatibleError(
                f"{source}: {key} is {value!r}; {names} above zero is allowed. Fetch the file again."
            )
        config[key] = value
    return config


def _per_level(value: Any, levels: int, key: str, source: Path) -> list[int]:
    """One whole number for each level, given once or as a list."""
    values = [value] * levels if type(value) is int else value
    if not isinstance(values, list) or len(values) != levels or not all(type(v) is int and v > 0 for v in values):
        raise IncompatibleError(
            f"{source}: {key} is {value!r}; a number, or one for each of {levels} levels. {ALLOWED}."
        )
    return values


def _family(data: Config) -> str:
    """The best guess at whose U-Net this is."""
    families = {"768": "Stable Diffusion 1.x", "1024": "Stable Diffusion 2.x"}
    return families.get(str(data.get("cross_attention_dim")), "another model family")
