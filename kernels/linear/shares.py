"""How many programs share the tiles of a product that do not fill the last round of a GPU's multiprocessors.

Of 160 tiles on 128 multiprocessors 32 are left for a second round, in which 96 do nothing. So their steps are shared
out instead, as even ranges in a row whatever tile they belong to, and a second kernel adds up the sums of each tile:
"stream-K" (Osama et al., 2023) for the tail only, whose first rounds stay whole tiles. Sums of int8 are exact, so a
result does not depend on how they were shared.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ..architecture import Architecture
from ..launch import cdiv

# In what one of depth takes a tile of 128 × 128: 16 clocks of a GeForce multiprocessor. Estimates: 3,500 clocks before
# a tile's first step and behind its last; 1.3 us for one launch more; a tile's sums, written and read, 128 KB at the
# 16 bytes a clock that an Ada multiprocessor has of the L2 cache, or at the 6 that an Ampere one has of the memory.
AREA: Final = 128 * 128
ENDS: Final = 200
LAUNCH: Final = 200
SUMS_IN_CACHE: Final = 512
SUMS_IN_MEMORY: Final = 1400
LEAST_STEPS: Final = 4  # of a share: enough to fill a pipeline
MOST_SHARES: Final = 8  # of a tile


@dataclass(frozen=True, kw_only=True)
class Shares:
    """The first `whole` tiles have a program each; the steps of all others are shared out among `sharers` programs."""

    whole: int
    sharers: int = 0


def share_out(*, tiles: int, area: int, steps: int, depth: int, arch: Architecture) -> Shares:
    """What is done first: all tiles whole, or those of the last round shared out, if that wins a tenth of all.

    `area`: elements of a tile. `steps`: of its `depth`.
    """
    multiprocessors, weight = arch.multiprocessors, area / AREA
    left = tiles % multiprocessors
    cached = 2 * area * 4 <= arch.l2 // 2  # of each multiprocessor two tiles at most, and as much is left for operands
    sums = weight * (SUMS_IN_CACHE if cached else SUMS_IN_MEMORY)
    full = tiles // multiprocessors * (depth * weight + ENDS)

    def cost(sharers: int) -> float:
        parts = sharers if sharers % left == 0 else sharers + left - 1  # a share that crosses tiles has two
        a_share = cdiv(left * steps, sharers) / steps * depth * weight + parts / sharers * ENDS
        return full + a_share + parts / multiprocessors * sums + LAUNCH

    best = min(_candidates(left, steps, multiprocessors), key=cost, default=0)
    if not best or cost(best) * 10 > (full + depth * weight + ENDS) * 9:
        return Shares(whole=tiles)
    return Shares(whole=tiles - left, sharers=best)


def _candidates(left: int, steps: int, multiprocessors: int) -> Iterator[int]:
    """Numbers of programs above that of the tiles `left`: the same number for each tile, or one a multiprocessor."""
    if left:
        most = min(multiprocessors, left * min(steps // LEAST_STEPS, MOST_SHARES))
        yield from (sharers for sharers in {*range(2 * left, most + 1, left), most} if sharers > left)
