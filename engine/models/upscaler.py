"""ESRGAN's network and Real-ESRGAN's compact one; parameter names are those of the projects' own code (BasicSR).

Held to spandrel by tests/engine/models/test_upscaler.py.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..upscaler import COLOURS, RESIDUAL, SLOPE, UpscalerArchitecture, UpscalerKind

_UPS = {1: 0, 2: 1, 4: 2, 8: 3, 16: 4}
"""Scale → how often the picture doubles."""


def upscaler(architecture: UpscalerArchitecture) -> nn.Module:
    """The network of these numbers: `[batch, 3 · unshuffle², h, w]` → `[batch, 3, scale · h, scale · w]`."""
    return Compact(architecture) if architecture.kind is UpscalerKind.COMPACT else Esrgan(architecture)


class DenseBlock(nn.Module):
    """Five convolutions, each of which reads all that is before it."""

    def __init__(self, width: int, growth: int, *, plus: bool) -> None:
        super().__init__()
        self.plus = plus
        for number in range(1, 5):
            self.add_module(f"conv{number}", _conv(width + (number - 1) * growth, growth))
        self.conv5 = _conv(width + 4 * growth, width)
        if plus:
            self.conv1x1 = nn.Conv2d(width, growth, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, width, h, w]` → the same shape."""
        found = [x]
        for number in range(1, 5):
            made = F.leaky_relu(self.get_submodule(f"conv{number}")(torch.cat(found, 1)), SLOPE)
            if self.plus and number in (2, 4):
                made = made + (self.conv1x1(x) if number == 2 else found[2])
            found.append(made)
        return self.conv5(torch.cat(found, 1)) * RESIDUAL + x  # type: ignore[no-any-return]


class ResidualBlock(nn.Module):
    """Three dense blocks and a shortcut (RRDB)."""

    def __init__(self, width: int, growth: int, *, plus: bool) -> None:
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (DenseBlock(width, growth, plus=plus) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, width, h, w]` → the same shape."""
        return self.rdb3(self.rdb2(self.rdb1(x))) * RESIDUAL + x  # type: ignore[no-any-return]


class Esrgan(nn.Module):
    """RRDBNet: residual blocks at the size that comes in, then doublings."""

    def __init__(self, architecture: UpscalerArchitecture) -> None:
        super().__init__()
        a = architecture
        self.ups = _UPS[a.scale]
        self.conv_first = _conv(COLOURS * a.unshuffle**2, a.width)
        self.body = nn.Sequential(*(ResidualBlock(a.width, a.growth, plus=a.plus) for _ in range(a.blocks)))
        self.conv_body = _conv(a.width, a.width)
        for number in range(1, self.ups + 1):
            self.add_module(f"conv_up{number}", _conv(a.width, a.width))
        self.conv_hr = _conv(a.width, a.width)
        self.conv_last = _conv(a.width, COLOURS)

    def forward(self, tile: Tensor) -> Tensor:
        """See `upscaler`."""
        x = self.conv_first(tile.to(self.conv_first.weight.dtype))
        x = x + self.conv_body(self.body(x))
        for number in range(1, self.ups + 1):
            doubled = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = F.leaky_relu(self.get_submodule(f"conv_up{number}")(doubled), SLOPE)
        return self.conv_last(F.leaky_relu(self.conv_hr(x), SLOPE))  # type: ignore[no-any-return]


class Compact(nn.Module):
    """SRVGGNetCompact: all convolutions at the size that comes in, the last one's channels become pixels."""

    def __init__(self, architecture: UpscalerArchitecture) -> None:
        super().__init__()
        a = self.architecture = architecture
        layers: list[nn.Module] = [_conv(COLOURS, a.width), nn.PReLU(a.width)]
        for _ in range(a.blocks):
            layers += [_conv(a.width, a.width), nn.PReLU(a.width)]
        self.body = nn.Sequential(*layers, _conv(a.width, COLOURS * a.scale**2))

    def forward(self, tile: Tensor) -> Tensor:
        """See `upscaler`."""
        x = tile.to(next(self.parameters()).dtype)
        larger = F.interpolate(x, scale_factor=float(self.architecture.scale), mode="nearest")
        return F.pixel_shuffle(self.body(x), self.architecture.scale) + larger


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)
