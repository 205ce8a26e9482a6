"""What a ControlNet-Union has besides a ControlNet: its hint encoder knows of what kind a hint is.

diffusers' `ControlNetUnionModel` puts the means of all hints and of the latents through a small transformer at every
step. But it attends over the rows of a call, not over hints (its input is laid out as `torch.nn.MultiheadAttention`
does not expect it by default), and a hint's rows are all equal: attention to copies of itself is its own value. So what
becomes of a hint depends on that hint alone, is computed once a picture, and the network in the loop is a plain
ControlNet's. Held to diffusers by tests/engine/models/test_union.py. Parameters have diffusers' names but for `value`,
the last third of `in_proj`, and `task_embedding.weight`.
"""

from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..companion import ControlNetArchitecture
from .controlnet import HintEncoder


class ValueAttention(nn.Module):
    """Attention of a token to copies of itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.value = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, width]` → the same shape."""
        return self.out_proj(self.value(x))  # type: ignore[no-any-return]


class Mlp(nn.Module):
    """Two linear layers with the quick GELU between."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, width]` → the same shape."""
        x = self.c_fc(x)
        return self.c_proj(x * (1.702 * x).sigmoid())  # type: ignore[no-any-return]


class FuserLayer(nn.Module):
    """One layer of the transformer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn = ValueAttention(width)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = Mlp(width)
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, width]` → the same shape."""
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))  # type: ignore[no-any-return]


class TaskEmbedding(nn.Module):
    """A vector for each kind of hint."""

    def __init__(self, kinds: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(kinds, width))

    def forward(self, mode: Tensor) -> Tensor:
        """`[batch]` of whole numbers → `[batch, width]`."""
        return F.embedding(mode, self.weight)


class UnionHintEncoder(HintEncoder):
    """The part of a ControlNet-Union that depends on one hint and its kind."""

    def __init__(self, architecture: ControlNetArchitecture) -> None:
        super().__init__(architecture)
        a, width = architecture, architecture.block_out_channels[0]
        self.task_embedding = TaskEmbedding(a.control_types, width)
        self.transformer_layes = nn.ModuleList(FuserLayer(width) for _ in range(a.fuser_layers))
        self.spatial_ch_projs = nn.Linear(width, width)

    def forward(  # type: ignore[override]
        self, image: Tensor, control_mode: Tensor, hint_scale: Tensor
    ) -> Tensor:
        """`[batch, 3, 8h, 8w]` in [0, 1], `[batch]` and `[1]` → `[batch, channels, h, w]`.

        `hint_scale`: among several hints how much this one counts; their results are added. Alone 1.
        """
        found = super().forward(image)
        scale = hint_scale.to(found.dtype)
        x = (found.mean((2, 3)) + self.task_embedding(control_mode)) * scale
        for layer in cast("Iterable[FuserLayer]", self.transformer_layes):
            x = layer(x)
        shift: Tensor = self.spatial_ch_projs(x)
        return (found + shift[:, :, None, None]) * scale
