"""The one walk over a U-Net's blocks, from which widths, names, torch modules and places in files derive."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

Depths = tuple[int | tuple[int, ...], ...]
"""Transformer blocks at each level: a number, or one for each of its layers (SSD-1B's); 0: no attention."""


def depth_at(depths: int | tuple[int, ...], index: int) -> int:
    """That of one layer of a level."""
    return depths if isinstance(depths, int) else depths[index]


class BlockKind(StrEnum):
    """What a block does; the value is the list of a stage that holds it, as diffusers calls it."""

    RESNET = "resnets"
    TRANSFORMER = "attentions"
    DOWNSAMPLER = "downsamplers"
    UPSAMPLER = "upsamplers"


@dataclass(frozen=True, kw_only=True)
class Block:
    """One block of the network: where it stands and how wide it is."""

    kind: BlockKind
    stage: str
    """`down_blocks.0`, `mid_block`, `up_blocks.2`: the module that holds the block."""
    index: int
    """Among the stage's blocks of this kind."""
    level: int
    """0 is the highest resolution."""
    in_channels: int
    """Those that the way down kept (`skip_channels`) included."""
    out_channels: int
    skip_channels: int = 0
    heads: int = 0
    depth: int = 0
    """Transformer blocks inside a transformer, each with one cross-attention."""

    @property
    def name(self) -> str:
        """Diffusers' name of the module."""
        return f"{self.stage}.{self.kind}.{self.index}"


@dataclass(frozen=True, kw_only=True)
class Topology:
    """The numbers that the walk goes by; levels from the highest resolution down, `up_depths` from the lowest up.

    A level's depth is one for all its transformers, or one for each. Without a depth the middle is one ResNet.
    """

    channels: tuple[int, ...]
    heads: tuple[int, ...]
    layers: int
    down_depths: "Depths"
    mid_depth: int
    up_depths: "Depths"

    def blocks(self) -> Iterator[Block]:
        """Every block between the first and the last convolution, in the order in which they run."""
        last, current = len(self.channels) - 1, self.channels[0]
        skips = [current]
        for level, width in enumerate(self.channels):
            stage = f"down_blocks.{level}"
            for index in range(self.layers):
                yield from self._layer(stage, index, level, current, depth_at(self.down_depths[level], index))
                current = width
                skips.append(current)
            if level < last:
                yield self._resizer(BlockKind.DOWNSAMPLER, stage, level)
                skips.append(current)
        yield from self._layer("mid_block", 0, last, current, self.mid_depth)
        if self.mid_depth:
            yield from self._layer("mid_block", 1, last, current, 0)
        for step, level in enumerate(range(last, -1, -1)):
            stage = f"up_blocks.{step}"
            for index in range(self.layers + 1):
                depth = depth_at(self.up_depths[step], index)
                yield from self._layer(stage, index, level, current, depth, skip=skips.pop())
                current = self.channels[level]
            if level:
                yield self._resizer(BlockKind.UPSAMPLER, stage, level)

    def _layer(self, stage: str, index: int, level: int, current: int, depth: int, skip: int = 0) -> Iterator[Block]:
        """A ResNet from `current` and `skip` channels to the level's width, and a transformer if it has a depth."""
        width = self.channels[level]
        yield Block(
            kind=BlockKind.RESNET,
            stage=stage,
            index=index,
            level=level,
            in_channels=current + skip,
            out_channels=width,
            skip_channels=skip,
        )
        if depth:
            yield Block(
                kind=BlockKind.TRANSFORMER,
                stage=stage,
                index=index,
                level=level,
                in_channels=width,
                out_channels=width,
                heads=self.heads[level],
                depth=depth,
            )

    def _resizer(self, kind: BlockKind, stage: str, level: int) -> Block:
        width = self.channels[level]
        return Block(kind=kind, stage=stage, index=0, level=level, in_channels=width, out_channels=width)
