"""Of the tiles that were measured on an architecture, the one that should be done first with a matrix product.

Rows of a table that differ in `tile` alone stand beside one another. Each says what a multiprocessor spends on a tile,
in nanoseconds: TILE_NS for its beginning and end, STEP_NS for BLOCK_K of depth. A multiprocessor that has several tiles
spends as much on each, whether at once or in turn. What all tiles have in common (2.7 us for the launch, 0.3 us for a
megabyte of operands and result) is left out: it moves no choice.

sm_90: fitted by least squares on relative errors to times of an H100 SXM over rotating inputs, 8 pairs of shape and
epilogue of the SDXL base at 1024x1024, two rows. Over the times of the six tiles of `linear_w8a8` the model is
2.2 % off on average, 9 % at most, and chooses the fastest of the six at every shape. The two tiles of
`geglu_linear_w8a8` were timed at two shapes each, which give their two numbers exactly.
"""

from collections.abc import Mapping


def fits_depth(config: Mapping[str, int], k: int) -> bool:
    """Whether a product of depth k is whole steps of a tile, and enough of them to fill its stages."""
    return k % config["BLOCK_K"] == 0 and k // config["BLOCK_K"] >= config["num_stages"] - 2


def nanoseconds(config: Mapping[str, int], multiprocessors: int, *, rows: int, n: int, k: int) -> int:
    """What the busiest multiprocessor spends on its tiles of (rows, k) by (n, k)."""
    width = config["BLOCK_N"] + config.get("SECOND_N", 0)
    tiles = -(-rows // config["BLOCK_M"]) * -(-n // width)
    most = -(-tiles // multiprocessors)
    return most * (config["TILE_NS"] + k // config["BLOCK_K"] * config["STEP_NS"])
