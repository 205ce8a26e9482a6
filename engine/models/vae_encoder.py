"""The encoder half of SDXL's VAE; parameter names are diffusers' `AutoencoderKL` names.

Held to diffusers by tests/engine/models/test_vae_encoder.py.
"""

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from ..architecture import VaeArchitecture
from .blocks import Resnet
from .vae import EPS, Middle


class Halve(nn.Module):
    """Halve height and width; what a pixel at the right or lower edge lacks is zeros."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, c, h, w]` → `[batch, c, h/2, w/2]`, for even sizes."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))  # type: ignore[no-any-return]


class DownStage(nn.Module):
    """The ResNets of one resolution, then a halving unless it is the last."""

    def __init__(self, inputs: int, outputs: int, layers: int, *, groups: int, halve: bool) -> None:
        super().__init__()
        widths = [inputs, *[outputs] * layers]
        self.resnets = nn.ModuleList([Resnet(a, b, groups=groups, eps=EPS) for a, b in pairwise(widths)])
        self.downsamplers = nn.ModuleList([Halve(outputs)] if halve else [])

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, inputs, h, w]` → `[batch, outputs, h/2, w/2]`, or `h, w` in the last stage."""
        for module in (*self.resnets, *self.downsamplers):
            x = module(x)
        return x


class Encoder(nn.Module):
    """Picture → mean and logarithm of the variance, side by side."""

    def __init__(self, architecture: VaeArchitecture) -> None:
        super().__init__()
        a = architecture
        widths, groups = a.block_out_channels, a.norm_num_groups
        self.conv_in = nn.Conv2d(a.out_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            [
                DownStage(widths[max(i - 1, 0)], width, a.layers_per_block, groups=groups, halve=i < len(widths) - 1)
                for i, width in enumerate(widths)
            ]
        )
        self.mid_block = Middle(widths[-1], groups)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], eps=EPS)
        self.conv_out = nn.Conv2d(widths[-1], 2 * a.latent_channels, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """`[batch, 3, 8h, 8w]` → `[batch, 2 · latent_channels, h, w]`."""
        x = self.conv_in(image)
        for stage in self.down_blocks:
            x = stage(x)
        return self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))  # type: ignore[no-any-return]


class VaeEncoder(nn.Module):
    """Picture in [-1, 1] → mean and logarithm of the variance of its latents, before the scaling factor."""

    def __init__(self, architecture: VaeArchitecture) -> None:
        super().__init__()
        channels = 2 * architecture.latent_channels
        self.encoder = Encoder(architecture)
        self.quant_conv = nn.Conv2d(channels, channels, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """`[batch, 3, 8h, 8w]` → two of `[batch, latent_channels, h, w]`."""
        mean, logvar = self.quant_conv(self.encoder(image.to(self.quant_conv.weight.dtype))).chunk(2, 1)
        return mean, logvar
