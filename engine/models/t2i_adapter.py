"""A T2I adapter for SDXL: diffusers' `T2IAdapter` of the kind `full_adapter_xl`, with its parameters' names.

Held to diffusers by tests/engine/models/test_t2i_adapter.py.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from ..t2i_adapter import CUT, T2IAdapterArchitecture


class AdapterLayer(nn.Module):
    """Two convolutions around a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.block2 = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, channels, h, w]` → the same shape."""
        return self.block2(F.relu(self.block1(x))) + x  # type: ignore[no-any-return]


class AdapterBlock(nn.Module):
    """Layers of one width, behind a change of width or of size."""

    def __init__(self, taken: int, channels: int, layers: int, *, halved: bool) -> None:
        super().__init__()
        self.halved = halved
        self.in_conv = nn.Conv2d(taken, channels, 1) if taken != channels else None
        self.resnets = nn.ModuleList(AdapterLayer(channels) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, taken, h, w]` → `[batch, channels, h, w]`, or half of both, rounded up."""
        if self.halved:
            x = F.avg_pool2d(x, kernel_size=2, stride=2, ceil_mode=True)
        if self.in_conv is not None:
            x = self.in_conv(x)
        for layer in cast("Iterable[AdapterLayer]", self.resnets):
            x = layer(x)
        return x


class FullAdapter(nn.Module):
    """What diffusers' class wraps."""

    def __init__(self, hint_channels: int, widths: Sequence[int], layers: int, halved: Sequence[bool]) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(hint_channels * CUT**2, widths[0], 3, padding=1)
        self.body = nn.ModuleList(
            AdapterBlock(taken, width, layers, halved=half)
            for taken, width, half in zip((widths[0], *widths[:-1]), widths, halved, strict=True)
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """`[batch, channels, 16h, 16w]` → what each block makes."""
        x = self.conv_in(F.pixel_unshuffle(image, CUT))
        features = []
        for block in cast("Iterable[AdapterBlock]", self.body):
            x = block(x)
            features.append(x)
        return features


class T2IAdapter(nn.Module):
    """A picture → features."""

    def __init__(self, architecture: T2IAdapterArchitecture) -> None:
        super().__init__()
        halvings = [1, *(halvings for _, halvings in architecture.places())]
        halved = [second > first for first, second in pairwise(halvings)]
        self.adapter = FullAdapter(architecture.hint_channels, architecture.widths, architecture.layers, halved)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """`[batch, channels, 16h, 16w]` in [0, 1] → `[batch, width, h, w]` for each block, halved from one on."""
        return tuple(self.adapter(image.to(self.adapter.conv_in.weight.dtype)))
