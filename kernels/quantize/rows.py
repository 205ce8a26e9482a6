"""How rows are laid over programs: shared by every kernel that holds whole rows in registers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ..launch import Constant, cdiv

MAX_WIDTH: Final = 4096  # of one piece of a row: sixteen elements for each of a block's threads at most
MAX_PARTS: Final = 8
MAX_C: Final = 16384  # a row stays in the registers of one program


@dataclass(frozen=True, kw_only=True)
class RowTile:
    """`rows` rows a program, each as `parts` pieces of `width` channels, on `num_warps` warps."""

    rows: int
    parts: int
    width: int
    num_warps: int

    @property
    def constants(self) -> dict[str, Constant]:
        """As the kernels name them."""
        return {"ROWS": self.rows, "PARTS": self.parts, "WIDTH": self.width}


def row_tile(c: int, config: Mapping[str, int]) -> RowTile:
    """The tile for rows of `c` channels.

    Widths are powers of two; the number of pieces is the one that leaves the fewest lanes idle: 5 × 256 for 1280,
    3 × 256 for 768. `config` gives TILE, the elements of all rows' pieces at one time, and the warps for it; rows wider
    than that take more warps.
    """
    _, parts, width = min(
        (parts * width - c, parts, width)
        for parts in range(1, MAX_PARTS + 1)
        if (width := max(16, 1 << (cdiv(c, parts) - 1).bit_length())) <= MAX_WIDTH
    )
    tile = config["TILE"]
    return RowTile(
        rows=max(1, tile // width),
        parts=parts,
        width=width,
        num_warps=config["num_warps"] * max(1, width // tile),
    )
