"""TAESD's decoder; parameter names are diffusers' `AutoencoderTiny` names.

Held to diffusers by tests/engine/models/test_tiny.py.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from ..tiny import TinyDecoderArchitecture

LIMIT = 3.0
"""Latents are bent smoothly into ±3, so that none is far from what it was trained on."""


class TinyBlock(nn.Module):
    """Three convolutions around a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        first, second, third = (nn.Conv2d(width, width, 3, padding=1) for _ in range(3))
        self.conv = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, width, h, w]` → the same shape."""
        return F.relu(self.conv(x) + x)


class Doubling(nn.Module):
    """Double height and width."""

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, c, h, w]` → `[batch, c, 2h, 2w]`."""
        return F.interpolate(x, scale_factor=2.0, mode="nearest")


class Layers(nn.Module):
    """All layers in a row."""

    def __init__(self, architecture: TinyDecoderArchitecture) -> None:
        super().__init__()
        a = architecture
        layers: list[nn.Module] = [nn.Conv2d(a.latent_channels, a.width, 3, padding=1), nn.ReLU()]
        for level, blocks in enumerate(a.blocks):
            layers += [TinyBlock(a.width) for _ in range(blocks)]
            if level < len(a.blocks) - 1:
                layers += [Doubling(), nn.Conv2d(a.width, a.width, 3, padding=1, bias=False)]
        layers.append(nn.Conv2d(a.width, a.out_channels, 3, padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, latent_channels, h, w]` → `[batch, 3, 8h, 8w]` in [0, 1]."""
        return self.layers(x)  # type: ignore[no-any-return]


class TinyDecoder(nn.Module):
    """Latents of unit variance → picture in [-1, 1], not clamped."""

    def __init__(self, architecture: TinyDecoderArchitecture) -> None:
        super().__init__()
        self.decoder = Layers(architecture)

    def forward(self, latents: Tensor) -> Tensor:
        """`[batch, latent_channels, h, w]` → `[batch, 3, 8h, 8w]`."""
        x = latents.to(next(self.parameters()).dtype)
        return self.decoder((x * (1 / LIMIT)).tanh() * LIMIT) * 2.0 + -1.0  # type: ignore[no-any-return]
