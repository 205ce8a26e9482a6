"""The numbers that shape an upscaler: a network that makes a picture larger by a whole factor (ESRGAN and its family).

It reads a picture in tiles (`upscaling.tiles`), so that memory does not grow with the picture. Tiles are counted in the
network's own pixels: one that reads blocks of several pixels as one (Real-ESRGAN's of factor 2 and 1) sees larger ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from .bounds import Bounds
from .specs import ComponentSpec, Role, TensorSpec

UPSCALER = "upscaler"
"""Its component's name."""
COLOURS = 3
SLOPE = 0.2
"""Of ESRGAN's leaky ReLUs."""
RESIDUAL = 0.2
"""What its blocks' answers are multiplied by before they are added."""
BOUNDS: Bounds = {
    "scale": (1, 16),
    "width": (1, 1024),
    "blocks": (1, 256),
    "growth": (0, 1024),
    "unshuffle": (1, 4),
}
TILE = 192
"""Pixels of a tile's side, at most."""
OVERLAP = 32
"""Pixels that neighbouring tiles have in common, at least: see `upscaling.tiles`."""
_HASH_DIGITS = 10
_BAND_COPIES = 16
"""Bytes for each number of a row of tiles: sums in floats, what is left of them for the next row, and roundings."""
_PILLOW = 7
"""Bytes of a picture's pixel while Pillow resizes it: four of its own, three of ours."""
MOST_ROUNDS = 4
"""How often a picture may go through it until it is as large as wanted: 2, four times, are the largest scale."""


class UpscalerKind(StrEnum):
    """Which network it is, by the name that spandrel has for it."""

    ESRGAN = "ESRGAN"
    """RRDBNet: dense blocks in residual ones (Wang et al. 2018, 1809.00219; Real-ESRGAN: 2107.10833)."""
    COMPACT = "Compact"
    """SRVGGNetCompact: convolutions in a row, of Real-ESRGAN's small models."""


@dataclass(frozen=True, kw_only=True)
class UpscalerArchitecture:
    """One network. `scale`: how much larger its output is than what it reads, along each side."""

    kind: UpscalerKind
    scale: int
    width: int
    """Channels."""
    blocks: int
    """Residual blocks, or of the compact one convolutions between the first and the last."""
    growth: int = 0
    """Channels that each convolution of a dense block adds; 0 for the compact one."""
    plus: bool = False
    """ESRGAN+ (Rakotonirina and Rasoanaivo 2020, 2001.08073): dense blocks have a shortcut more."""
    unshuffle: int = 1
    """The picture's pixels along a side that it reads as one."""

    @property
    def factor(self) -> int:
        """How much larger a picture becomes; 1 for one that restores."""
        return self.scale // self.unshuffle

    @property
    def title(self) -> str:
        """In words."""
        return f"upscaler {self.factor}x ({self.kind}{'+' if self.plus else ''}, {self.blocks} blocks of {self.width})"

    def component(self) -> ComponentSpec:
        """A tile in [0, 1] → the larger one, about in [0, 1]. `height`, `width`: of what the network reads."""
        channels = COLOURS * self.unshuffle**2
        return ComponentSpec(
            role=Role.UPSCALER,
            inputs=(TensorSpec(name="tile", shape=("batch", channels, "height", "width")),),
            outputs=(TensorSpec(name="larger", shape=("batch", COLOURS, "larger_height", "larger_width")),),
        )

    def faults(self) -> Iterator[str]:
        """Where its numbers contradict each other."""
        if self.scale % self.unshuffle:
            yield f"scale is {self.scale}, no multiple of unshuffle, {self.unshuffle}"
        compact = self.kind is UpscalerKind.COMPACT
        if compact != (self.growth == 0) or (compact and (self.plus or self.unshuffle > 1)):
            yield f"kind is {self.kind}, with a growth of {self.growth}, unshuffle {self.unshuffle}"
        if not compact and self.scale not in (1, 2, 4, 8, 16):
            yield f"scale is {self.scale}, a power of two is allowed for {self.kind}"


@dataclass(frozen=True, kw_only=True)
class Enlarger:
    """An upscaler beside an engine, as a call knows it."""

    name: str
    """What its folder is called."""
    digest: str
    """Of its folder, as an engine's."""
    architecture: UpscalerArchitecture

    @property
    def hash(self) -> str:
        """What tells it apart in pictures."""
        return self.digest[:_HASH_DIGITS]


def rounds(height: int, width: int, wanted: tuple[int, int], factor: int) -> list[tuple[int, int]]:
    """(height, width) of the picture before each round that brings it to at least `wanted`; at least one.

    As AUTOMATIC1111 does it, what is still too small after a round goes through the network again.
    """
    found = [(height, width)]
    while factor > 1 and len(found) < MOST_ROUNDS:
        height, width = height * factor, width * factor
        if height >= wanted[0] and width >= wanted[1]:
            break
        found.append((height, width))
    return found


def held_bytes(architecture: UpscalerArchitecture, height: int, width: int, wanted: tuple[int, int]) -> int:
    """What enlarging holds beside the network: pictures of uint8 before and after each round, and a row of tiles."""
    factor, block = architecture.factor, architecture.unshuffle
    most = 0
    for tall, wide in rounds(height, width, wanted, factor):
        larger = tall * wide * factor**2
        band = _BAND_COPIES * COLOURS * architecture.scale * tile_side(-(-tall // block)) * wide * factor
        fits = (tall * factor, wide * factor) == wanted
        resized = 0 if fits else _PILLOW * (larger + wanted[0] * wanted[1])
        most = max(most, COLOURS * (tall * wide + larger) + max(band, resized))
    return most


def tile_pixels(architecture: UpscalerArchitecture, height: int, width: int, wanted: tuple[int, int]) -> int:
    """Pixels of the largest tile, as the network reads them."""
    block = architecture.unshuffle
    sides = rounds(height, width, wanted, architecture.factor)
    return max(tile_side(-(-tall // block)) * tile_side(-(-wide // block)) for tall, wide in sides)


def tile_side(length: int) -> int:
    """Pixels that a tile has along a side of that many pixels."""
    if length <= TILE:
        return length
    tiles = tile_count(length)
    return -(-(length + (tiles - 1) * OVERLAP) // tiles)


def tile_count(length: int) -> int:
    """How many tiles lie along a side."""
    return max(1, -(-(length - OVERLAP) // (TILE - OVERLAP)))
