"""SDXL's U-Net as inference needs it: time vectors, keys and values come in ready (see `conditioner.py`).

Parameters have diffusers' `UNet2DConditionModel` names; those that the conditioner holds are absent. Held to diffusers
by tests/engine/models/test_unet.py.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, zip_longest
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..architecture import UNetArchitecture
from ..topology import Block, BlockKind
from .blocks import Downsample, Resnet, SpatialTransformer, Upsample


class Stage(nn.Module):
    """One level of the U-Net, or its middle: ResNets, each with a transformer or none, then a change of size."""

    def __init__(self, blocks: Sequence[Block], *, groups: int, eps: float) -> None:
        super().__init__()
        of = {kind: [block for block in blocks if block.kind is kind] for kind in BlockKind}
        self.resnets = nn.ModuleList(
            Resnet(b.in_channels, b.out_channels, groups=groups, eps=eps) for b in of[BlockKind.RESNET]
        )
        self.attentions = nn.ModuleList(
            SpatialTransformer(b.out_channels, b.heads, b.depth, groups=groups) for b in of[BlockKind.TRANSFORMER]
        )
        self.downsamplers = nn.ModuleList(Downsample(b.out_channels) for b in of[BlockKind.DOWNSAMPLER])
        self.upsamplers = nn.ModuleList(Upsample(b.out_channels) for b in of[BlockKind.UPSAMPLER])

    def layers(self) -> Iterator[tuple[Resnet, SpatialTransformer | None]]:
        """The ResNets in running order, each with the transformer that follows it."""
        return zip_longest(self.resnets, self.attentions)  # type: ignore[arg-type]


class UNet(nn.Module):
    """Latents, one step's time vectors and the prompt's keys and values → the model's prediction."""

    def __init__(self, architecture: UNetArchitecture) -> None:
        super().__init__()
        a = architecture
        channels, groups = a.block_out_channels, a.norm_num_groups
        stages = {
            name: Stage(list(blocks), groups=groups, eps=a.norm_eps)
            for name, blocks in groupby(a.blocks(), key=lambda block: block.stage)
        }
        self.widths = list(a.resnet_widths())
        self.conv_in = nn.Conv2d(a.in_channels, channels[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(stage for name, stage in stages.items() if name.startswith("down_blocks"))
        self.mid_block = stages["mid_block"]
        self.up_blocks = nn.ModuleList(stage for name, stage in stages.items() if name.startswith("up_blocks"))
        self.conv_norm_out = nn.GroupNorm(groups, channels[0], eps=a.norm_eps)
        self.conv_out = nn.Conv2d(channels[0], a.out_channels, 3, padding=1)

    def forward(
        self,
        latents: Tensor,
        time_vectors: Tensor,
        key_values: Sequence[Tensor],
        residuals: Sequence[Tensor] = (),
    ) -> Tensor:
        """`latents [batch, in, h, w]`, `time_vectors [batch, sum(resnet_widths)]`, `key_values` → `[batch, out, h, w]`.

        `key_values` alternates keys and values `[batch, tokens, width]` of the transformer blocks in running order,
        as `UNetArchitecture.key_values` declares them. `residuals`, if there are any, are added to the skip connections
        and, the last, to the middle (`companion.residuals`). Height and width may be odd at any level.
        Inputs of another float dtype than the weights are cast to theirs.
        """
        dtype = self.conv_in.weight.dtype
        times = iter(torch.split(time_vectors.to(dtype), self.widths, dim=1))
        prompt = (tensor.to(dtype) for tensor in key_values)
        x = self.conv_in(latents.to(dtype))
        skips = [x]
        for stage in cast("Iterable[Stage]", self.down_blocks):
            for resnet, transformer in stage.layers():
                x = _layer(resnet, transformer, x, times, prompt)
                skips.append(x)
            for downsampler in stage.downsamplers:
                x = downsampler(x)
                skips.append(x)
        for resnet, transformer in self.mid_block.layers():
            x = _layer(resnet, transformer, x, times, prompt)
        if residuals:
            *added, middle = (tensor.to(dtype) for tensor in residuals)
            skips = [skip + own for skip, own in zip(skips, added, strict=True)]
            x = x + middle
        for stage in cast("Iterable[Stage]", self.up_blocks):
            for resnet, transformer in stage.layers():
                x = _layer(resnet, transformer, torch.cat([x, skips.pop()], dim=1), times, prompt)
            for upsampler in stage.upsamplers:
                x = upsampler(x, skips[-1])
        return self.conv_out(F.silu(self.conv_norm_out(x)))  # type: ignore[no-any-return]


def _layer(
    resnet: Resnet, transformer: SpatialTransformer | None, x: Tensor, times: Iterator[Tensor], prompt: Iterator[Tensor]
) -> Tensor:
    """One ResNet and its transformer, which take their time vector and keys/values from the iterators."""
    x = resnet(x, next(times))
    if transformer is None:
        return x
    depth = len(transformer.transformer_blocks)
    return transformer(x, [next(prompt) for _ in range(2 * depth)])  # type: ignore[no-any-return]
