"""SDXL's U-Net as inference needs it: time vectors, keys and values come in ready (see `conditioner.py`).

Parameters have diffusers' `UNet2DConditionModel` names; those that the conditioner holds are absent. Held to diffusers
by tests/engine/models/test_unet.py.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..architecture import UNetArchitecture
from .blocks import Downsample, Resnet, SpatialTransformer, Upsample


class Stage(nn.Module):
    """One level of the U-Net, or its middle: ResNets, each with a transformer or none, then a change of size."""

    def __init__(
        self,
        resnets: Sequence[Resnet],
        attentions: Sequence[SpatialTransformer],
        *,
        downsampler: Downsample | None = None,
        upsampler: Upsample | None = None,
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(resnets)
        self.attentions = nn.ModuleList(attentions)
        self.downsamplers = nn.ModuleList([downsampler] if downsampler else [])
        self.upsamplers = nn.ModuleList([upsampler] if upsampler else [])

    def layers(self) -> Iterator[tuple[Resnet, SpatialTransformer | None]]:
        """The ResNets in running order, each with the transformer that follows it."""
        return zip_longest(self.resnets, self.attentions)  # type: ignore[arg-type]


class UNet(nn.Module):
    """Latents, one step's time vectors and the prompt's keys and values → the model's prediction."""

    def __init__(self, architecture: UNetArchitecture) -> None:
        super().__init__()
        a = architecture
        channels, groups, last = a.block_out_channels, a.norm_num_groups, len(a.block_out_channels) - 1

        def resnet(inputs: int, outputs: int) -> Resnet:
            return Resnet(inputs, outputs, groups=groups, eps=a.norm_eps)

        def transformers(count: int, level: int, depth: int) -> list[SpatialTransformer]:
            if not depth:
                return []
            return [SpatialTransformer(channels[level], a.heads[level], depth, groups=groups) for _ in range(count)]

        self.widths = list(a.resnet_widths())
        self.conv_in = nn.Conv2d(a.in_channels, channels[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        skips = [channels[0]]
        for level, width in enumerate(channels):
            before = channels[max(level - 1, 0)]
            self.down_blocks.append(
                Stage(
                    [resnet(before if i == 0 else width, width) for i in range(a.layers_per_block)],
                    transformers(a.layers_per_block, level, a.transformer_layers[level]),
                    downsampler=Downsample(width) if level < last else None,
                )
            )
            skips += [width] * (a.layers_per_block + (level < last))
        self.mid_block = Stage(
            [resnet(channels[-1], channels[-1]) for _ in range(2)], transformers(1, last, a.mid_transformer_layers)
        )
        self.up_blocks = nn.ModuleList()
        current = channels[-1]
        for level in range(last, -1, -1):
            resnets = []
            for _ in range(a.layers_per_block + 1):
                resnets.append(resnet(current + skips.pop(), channels[level]))
                current = channels[level]
            self.up_blocks.append(
                Stage(
                    resnets,
                    transformers(a.layers_per_block + 1, level, a.up_transformer_layers[last - level]),
                    upsampler=Upsample(current) if level else None,
                )
            )
        self.conv_norm_out = nn.GroupNorm(groups, channels[0], eps=a.norm_eps)
        self.conv_out = nn.Conv2d(channels[0], a.out_channels, 3, padding=1)

    def forward(self, latents: Tensor, time_vectors: Tensor, key_values: Sequence[Tensor]) -> Tensor:
        """`latents [batch, in, h, w]`, `time_vectors [batch, sum(resnet_widths)]`, `key_values` → `[batch, out, h, w]`.

        `key_values` alternates keys and values `[batch, tokens, width]` of the transformer blocks in running order,
        as `UNetArchitecture.key_values` declares them. Height and width may be odd at any level.
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
