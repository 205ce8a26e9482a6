"""The one table of sensitive layers, and what the three that use it make of it."""

import re

import pytest

from pocketxl.kernels.layers import KEEP
from pocketxl.kernels.sdxl import EIGHT_BITS, calls
from pocketxl.kernels.sdxl_layers import Conv, Linear, layers
from pocketxl.kernels.sensitive import SENSITIVE, Stands, sensitive_pattern

FLOATS = (
    "conv_in", "conv_out", "time_embedding.linear_1", "add_embedding.linear_2", "mid_block.resnets.0.time_emb_proj",
    "up_blocks.0.resnets.1.conv_shortcut", "mid_block.attentions.0.transformer_blocks.3.attn2.to_k",
)  # fmt: skip
FROM_STATIC = ("down_blocks.1.downsamplers.0.conv",)
EIGHT = ("up_blocks.0.upsamplers.0.conv", "mid_block.attentions.0.proj_in", "mid_block.attentions.0.proj_out")
PLAIN = (
    "mid_block.resnets.0.conv1", "mid_block.attentions.0.transformer_blocks.3.attn2.to_q", "a.attn1.to_k", "my_conv_in",
)  # fmt: skip


@pytest.mark.parametrize(
    ("most", "names"),
    [
        (Stands.NOTHING, {"conv_in", "conv_out"}),
        (Stands.WEIGHTS_8, {*FLOATS}),
        (Stands.DYNAMIC_RANGE, {*FLOATS, *FROM_STATIC}),
        (Stands.STATIC_RANGE, {*FLOATS, *FROM_STATIC, *EIGHT}),
    ],
)
def test_who_stands_little_is_named_with_all_who_stand_less(most: Stands, names: set[str]) -> None:
    every = (*FLOATS, *FROM_STATIC, *EIGHT, *PLAIN)
    assert {name for name in every if re.fullmatch(sensitive_pattern(most), name)} == names


def test_layers_with_dynamic_ranges_may_downsample_in_8_bits() -> None:
    assert sensitive_pattern(Stands.WEIGHTS_8) == KEEP


def test_4_bit_weights_spare_the_residual_stream() -> None:
    assert {"shortcut", "down", "up", "proj_in", "proj_out"} == EIGHT_BITS
    eight = {call.op for call in calls("base", height=512, width=512, precision="w4")}
    assert {"linear_w8", "conv_w8", "linear_w4", "conv_w4"} <= eight


def test_every_role_in_the_table_is_one_of_the_walk() -> None:
    walk = {s.role for s in layers("base", height=512, width=512) if isinstance(s, Conv | Linear)}
    assert {role for row in SENSITIVE for role in row.roles} <= walk
