"""Where tiles lie along a side, and how much of each counts where they overlap.

A network like ESRGAN's sees hundreds of pixels to either side, if ever more faintly, so a tile differs from the whole
picture, most of all at its edge. The outer `MARGIN` of an overlap is therefore thrown away, and from there one tile
fades into the next.
"""

from dataclasses import dataclass

import numpy as np

from ..pictures_in.input import Array
from ..upscaler import TILE, tile_count, tile_side

MARGIN = 12
"""Pixels of a tile, beside another one, that do not count."""


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """Along one side: where they begin, and how long they all are, in pixels that the network reads."""

    starts: tuple[int, ...]
    side: int

    @classmethod
    def along(cls, length: int) -> "Tiles":
        """Those of a side of `length` pixels, equally far apart."""
        side, count = tile_side(length), tile_count(length)
        if length <= TILE:
            return cls(starts=(0,), side=length)
        return cls(starts=tuple(round(i * (length - side) / (count - 1)) for i in range(count)), side=side)

    def weights(self, scale: int) -> list[Array]:
        """Of each tile how much every pixel of its output counts, `[side · scale]`; where tiles meet the sum is 1."""
        found = [np.ones(self.side * scale, np.float32) for _ in self.starts]
        for index, (start, following) in enumerate(zip(self.starts, self.starts[1:], strict=False)):
            common = start + self.side - following
            steps = (common - 2 * MARGIN) * scale
            fade = (np.arange(steps, dtype=np.float32) + np.float32(0.5)) / np.float32(steps)
            none = np.zeros(MARGIN * scale, np.float32)
            rising = np.concatenate([none, fade, 1 - none])
            found[index + 1][: common * scale] = rising
            found[index][-common * scale :] = 1 - rising
        return found
