"""The layers of SDXL's U-Nets that bear fewer bits worst, in one table: recipes and the kernels' layers derive from it.

Names are those of diffusers' state dict without `.weight`; roles are those of `sdxl_layers`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final


class Stands(IntEnum):
    """The most that may be taken from a layer, least first; who stands one of these stands those before it too."""

    NOTHING = 0
    """Floats, whatever the rest is."""
    WEIGHTS_8 = 1
    """8-bit weights, but its input stays in floats."""
    DYNAMIC_RANGE = 2
    """An 8-bit input too, in the range that it has at that call, but not in one fixed beforehand."""
    STATIC_RANGE = 3
    """An 8-bit input in a calibrated range, but no weights below 8 bits."""


@dataclass(frozen=True, kw_only=True)
class Sensitive:
    """One row: the layers (a regular expression of the last parts of their names), and why they are in the table."""

    names: str
    roles: frozenset[str] = frozenset()
    """What `sdxl_layers` calls them; empty for what is computed once a picture and is no part of its walk."""
    stands: Stands
    reason: str


SENSITIVE: Final = (
    Sensitive(
        names=r"conv_in|conv_out",
        roles=frozenset({"in", "out"}),
        stands=Stands.NOTHING,
        reason="they touch the latents themselves, and are 0.1 % of the work",
    ),
    Sensitive(
        names=r"time_embedding|add_embedding|time_emb_proj",
        stands=Stands.WEIGHTS_8,
        reason="every block adds what they give; computed once a picture",
    ),
    Sensitive(
        names=r"attn2\.to_[kv]",
        stands=Stands.WEIGHTS_8,
        reason="the prompt's first token is an outlier; computed once a picture",
    ),
    # No norm has tamed the residual stream. In one range per tensor, on a half-trained miniature, the U-Net's error
    # fell from 5.9 % to 2.6 without the shortcuts and to 1.9 without downsampling too; upsampling in floats gained only
    # 0.1 and would cost a tenth of the time. Shortcuts and downsampling are 1.3 % of the work.
    Sensitive(
        names="conv_shortcut",
        roles=frozenset({"shortcut"}),
        stands=Stands.WEIGHTS_8,
        reason="they read the residual stream, two pictures of different ranges side by side",
    ),
    Sensitive(
        names=r"downsamplers\.\d+\.conv",
        roles=frozenset({"down"}),
        stands=Stands.DYNAMIC_RANGE,
        reason="they read the residual stream",
    ),
    Sensitive(
        names=r"upsamplers\.\d+\.conv",
        roles=frozenset({"up"}),
        stands=Stands.STATIC_RANGE,
        reason="they read the residual stream, and hold too much of the work to keep it in floats",
    ),
    Sensitive(
        names="proj_in|proj_out",
        roles=frozenset({"proj_in", "proj_out"}),
        stands=Stands.STATIC_RANGE,
        reason="they stand between the residual stream and the transformer blocks",
    ),
)


def sensitive_pattern(most: Stands) -> str:
    """A regular expression of the whole names of layers that stand at most `most`, and of what lies below them."""
    return rf"(?:.*\.)?(?:{'|'.join(row.names for row in SENSITIVE if row.stands <= most)})(?:\..*)?"


def sensitive_roles(most: Stands) -> frozenset[str]:
    """The roles in `sdxl_layers` of layers that stand at most `most`, but not of those that stand nothing."""
    return frozenset[str]().union(*(row.roles for row in SENSITIVE if Stands.NOTHING < row.stands <= most))
