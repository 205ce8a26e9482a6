"""The decoder half of SDXL's VAE; parameter names are diffusers' `AutoencoderKL` names.

Held to diffusers by tests/engine/models/test_vae.py.
"""

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from ..architecture import VaeArchitecture
from .blocks import Resnet, Upsample
from .operations import attention

EPS = 1e-6  # diffusers fixes it for the whole VAE


class PixelAttention(nn.Module):
    """Attention among all pixels, one head, added to its input."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, width, eps=EPS)
        self.to_q = nn.Linear(width, width)
        self.to_k = nn.Linear(width, width)
        self.to_v = nn.Linear(width, width)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, width, h, w]` → the same shape."""
        pixels = self.group_norm(x).flatten(2).transpose(1, 2)
        mixed = attention(self.to_q(pixels), self.to_k(pixels), self.to_v(pixels), 1)
        return self.to_out[0](mixed).transpose(1, 2).reshape_as(x) + x  # type: ignore[no-any-return]


class Middle(nn.Module):
    """ResNet, attention, ResNet at the latents' resolution."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList([Resnet(width, width, groups=groups, eps=EPS) for _ in range(2)])
        self.attentions = nn.ModuleList([PixelAttention(width, groups)])

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, width, h, w]` → the same shape."""
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))  # type: ignore[no-any-return]


class UpStage(nn.Module):
    """The ResNets of one resolution, then a doubling unless it is the last."""

    def __init__(self, inputs: int, outputs: int, layers: int, *, groups: int, double: bool) -> None:
        super().__init__()
        widths = [inputs, *[outputs] * layers]
        self.resnets = nn.ModuleList([Resnet(a, b, groups=groups, eps=EPS) for a, b in pairwise(widths)])
        self.upsamplers = nn.ModuleList([Upsample(outputs)] if double else [])

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, inputs, h, w]` → `[batch, outputs, 2h, 2w]`, or `h, w` in the last stage."""
        for module in (*self.resnets, *self.upsamplers):
            x = module(x)
        return x


class Decoder(nn.Module):
    """Latent channels → picture."""

    def __init__(self, architecture: VaeArchitecture) -> None:
        super().__init__()
        a = architecture
        widths, groups = a.block_out_channels[::-1], a.norm_num_groups
        self.conv_in = nn.Conv2d(a.latent_channels, widths[0], 3, padding=1)
        self.mid_block = Middle(widths[0], groups)
        self.up_blocks = nn.ModuleList(
            [
                UpStage(
                    widths[max(i - 1, 0)],
                    width,
                    a.layers_per_block + 1,
                    groups=groups,
                    double=i < len(widths) - 1,
                )
                for i, width in enumerate(widths)
            ]
        )
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], eps=EPS)
        self.conv_out = nn.Conv2d(widths[-1], a.out_channels, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        """`[batch, latent_channels, h, w]` → `[batch, 3, 8h, 8w]`."""
        x = self.mid_block(self.conv_in(latents))
        for stage in self.up_blocks:
            x = stage(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))  # type: ignore[no-any-return]


class VaeDecoder(nn.Module):
    """Latents, already divided by the scaling factor → picture in [-1, 1], not clamped."""

    def __init__(self, architecture: VaeArchitecture) -> None:
        super().__init__()
        channels = architecture.latent_channels
        self.post_quant_conv = nn.Conv2d(channels, channels, 1)
        self.decoder = Decoder(architecture)

    def forward(self, latents: Tensor) -> Tensor:
        """`[batch, latent_channels, h, w]` → `[batch, 3, 8h, 8w]`."""
        return self.decoder(self.post_quant_conv(latents.to(self.post_quant_conv.weight.dtype)))  # type: ignore[no-any-return]
