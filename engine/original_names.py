"""What the modules of a U-Net are called in the original layout of Stability-AI/generative-models.

Checkpoints in a single file have these names, and so have LoRAs that were trained on one. They are derived from the
numbers of the architecture, so that one set of rules serves the whole family.
"""

from collections.abc import Mapping

from .architecture import UNetArchitecture
from .topology import BlockKind

Places = dict[str, str]
"""Original module path → diffusers' module path; what follows the path is the same in both."""

SIDES = {"down_blocks": "input_blocks", "mid_block": "middle_block", "up_blocks": "output_blocks"}
RESNET: Mapping[str, str] = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "emb_layers.1": "time_emb_proj",
    "skip_connection": "conv_shortcut",
}


def unet_places(architecture: UNetArchitecture) -> Places:
    """Every module of the original U-Net."""
    places = {
        "time_embed.0": "time_embedding.linear_1",
        "time_embed.2": "time_embedding.linear_2",
        "input_blocks.0.0": "conv_in",
        "out.0": "conv_norm_out",
        "out.2": "conv_out",
    }
    if architecture.size_ids is not None:
        places |= {"label_emb.0.0": "add_embedding.linear_1", "label_emb.0.2": "add_embedding.linear_2"}
    if architecture.time_cond_proj_dim:
        places["time_embed.cond_proj"] = "time_embedding.cond_proj"
    # A number for each ResNet and each downsampler, which begin a block there, and another for what is in the block.
    number, part = {"input_blocks": 0, "output_blocks": -1}, -1
    for block in architecture.blocks():
        side = SIDES[block.stage.split(".")[0]]
        if side in number and block.kind in (BlockKind.RESNET, BlockKind.DOWNSAMPLER):
            number[side], part = number[side] + 1, 0
        else:
            part = 0 if block.kind is BlockKind.RESNET and block.index == 0 else part + 1
        original = f"{side}.{number[side]}.{part}" if side in number else f"{side}.{part}"
        match block.kind:
            case BlockKind.RESNET:
                places.update({f"{original}.{old}": f"{block.name}.{new}" for old, new in RESNET.items()})
            case BlockKind.TRANSFORMER:
                parts = ("norm", "proj_in", *(f"transformer_blocks.{i}" for i in range(block.depth)), "proj_out")
                places.update({f"{original}.{part_}": f"{block.name}.{part_}" for part_ in parts})
            case BlockKind.DOWNSAMPLER:
                places[f"{original}.op"] = f"{block.name}.conv"
            case BlockKind.UPSAMPLER:
                places[f"{original}.conv"] = f"{block.name}.conv"
    return places
