"""A ControlNet as inference needs it: the picture is encoded once, time vectors, keys and values come in ready.

Parameters have diffusers' `ControlNetModel` names; those that the conditioner holds are absent. Held to diffusers by
tests/engine/models/test_controlnet.py.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby, pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..companion import ControlNetArchitecture, residuals
from .unet import Stage


class ConditionEmbedding(nn.Module):
    """3×3 convolutions that bring a picture to an eighth of its size along each side."""

    def __init__(self, channels: int, widths: Sequence[int], out: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Conv2d(wide, to, 3, padding=1, stride=stride)
            for wide, wider in pairwise(widths)
            for to, stride in ((wide, 1), (wider, 2))
        )
        self.conv_out = nn.Conv2d(widths[-1], out, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """`[batch, channels, 8h, 8w]` → `[batch, out, h, w]`."""
        x = F.silu(self.conv_in(image))
        for block in self.blocks:
            x = F.silu(block(x))
        return self.conv_out(x)  # type: ignore[no-any-return]


class HintEncoder(nn.Module):
    """The part of a ControlNet that depends on the picture alone."""

    def __init__(self, architecture: ControlNetArchitecture) -> None:
        super().__init__()
        a = architecture
        self.controlnet_cond_embedding = ConditionEmbedding(a.hint_channels, a.hint_widths, a.block_out_channels[0])

    def forward(self, image: Tensor) -> Tensor:
        """`[batch, 3, 8h, 8w]` in [0, 1] → `[batch, channels, h, w]`."""
        embedding = self.controlnet_cond_embedding
        return embedding(image.to(embedding.conv_in.weight.dtype))  # type: ignore[no-any-return]


class ControlNet(nn.Module):
    """Latents, one step's time vectors, the encoded picture, keys and values → what is added to a U-Net's skips."""

    def __init__(self, architecture: ControlNetArchitecture) -> None:
        super().__init__()
        a = architecture
        stages = {
            name: Stage(list(blocks), groups=a.norm_num_groups, eps=a.norm_eps)
            for name, blocks in groupby(a.blocks(), key=lambda block: block.stage)
        }
        self.widths = list(a.resnet_widths())
        self.conv_in = nn.Conv2d(a.in_channels, a.block_out_channels[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(stage for name, stage in stages.items() if name.startswith("down_blocks"))
        self.mid_block = stages["mid_block"]
        *skips, middle = (cast("int", tensor.shape[1]) for tensor in residuals(a))
        self.controlnet_down_blocks = nn.ModuleList(nn.Conv2d(width, width, 1) for width in skips)
        self.controlnet_mid_block = nn.Conv2d(middle, middle, 1)

    def forward(
        self, latents: Tensor, time_vectors: Tensor, hint: Tensor, scale: Tensor, key_values: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """`latents [batch, in, h, w]`, `time_vectors [batch, sum(resnet_widths)]`, `hint [batch, channels, h, w]`.

        `scale [1]` multiplies all that is given: one tensor for each skip connection, and one for the middle.
        Inputs of another float dtype than the weights are cast to theirs.
        """
        dtype = self.conv_in.weight.dtype
        times = iter(torch.split(time_vectors.to(dtype), self.widths, dim=1))
        prompt = (tensor.to(dtype) for tensor in key_values)

        def layers(stage: Stage, x: Tensor) -> Iterable[Tensor]:
            for resnet, transformer in stage.layers():
                x = resnet(x, next(times))
                if transformer is not None:
                    x = transformer(x, [next(prompt) for _ in range(2 * len(transformer.transformer_blocks))])
                yield x

        x = self.conv_in(latents.to(dtype)) + hint.to(dtype)
        skips = [x]
        for stage in cast("Iterable[Stage]", self.down_blocks):
            skips += layers(stage, skips[-1])
            skips += [downsampler(skips[-1]) for downsampler in stage.downsamplers]
        *_, middle = layers(self.mid_block, skips[-1])
        factor = scale.to(dtype)
        given = [conv(skip) for conv, skip in zip(self.controlnet_down_blocks, skips, strict=True)]
        return tuple(tensor * factor for tensor in (*given, self.controlnet_mid_block(middle)))
