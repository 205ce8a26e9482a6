"""diffusers' `AutoencoderKL` configuration → the numbers of our VAE."""

from collections.abc import Mapping
from typing import Any

from ...engine.architecture import VaeArchitecture
from .configuration import MOST_CHANNELS, JsonFile, Option

OPTIONS: Mapping[str, Option] = {
    "latent_channels": Option(default=4, least=1, most=64),
    "layers_per_block": Option(default=1, least=1, most=64),
    "norm_num_groups": Option(default=32, least=1, most=1024),
    "out_channels": Option(default=3, least=3, most=3),
    "scaling_factor": Option(default=0.18215, least=1e-6, most=1e6),
}
LISTS = ("block_out_channels", "down_block_types", "up_block_types")
UNREAD = ("force_upcast", "in_channels", "sample_size")
"""At any value: a matter of 16-bit arithmetic, of the encoder, and of nothing."""
FIXED: Mapping[str, tuple[Any, ...]] = {
    "_class_name": ("AutoencoderKL",),
    "act_fn": ("silu",),
    "latents_mean": (None,),
    "latents_std": (None,),
    "mid_block_add_attention": (True,),
    "shift_factor": (None, 0, 0.0),
    "use_post_quant_conv": (True,),
    "use_quant_conv": (True,),
}


def vae_architecture(file: JsonFile) -> VaeArchitecture:
    """The numbers of a VAE; `IncompatibleError` for what our modules cannot run."""
    file.hold(FIXED, lambda key: key in OPTIONS or key in LISTS or key in UNREAD, ("_class_name",))
    numbers = {key: file.number(OPTIONS, key) for key in OPTIONS}
    channels = file.whole_numbers("block_out_channels", [64], Option(default=64, least=1, most=MOST_CHANNELS))
    for key, kind in (("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")):
        blocks = file.said(key, [kind])
        if not isinstance(blocks, list | tuple) or list(blocks) != [kind] * len(channels):
            raise file.refuse(key, blocks, f"{len(channels)} × {kind}")
    file.divided("block_out_channels", channels, "norm_num_groups", numbers["norm_num_groups"])
    return VaeArchitecture(**numbers, block_out_channels=channels)
