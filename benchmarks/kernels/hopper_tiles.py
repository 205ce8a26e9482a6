"""What an H100 was measured to spend on the tiles of its own kernels: the tables' numbers, for launches of them."""

from collections.abc import Mapping
from typing import Final

from pocketxl.kernels.configs import table
from pocketxl.kernels.launch import Launch

from .products import Product

# What all tiles have in common, from the fit that gave TILE_NS and STEP_NS (see `kernels.configs.tiles`): seconds for
# the launch, gap included, and for a byte of operands and result.
LAUNCH: Final = 2.7e-6
BYTE: Final = 0.3e-12
TABLES: Final = {
    "hopper.linear_w8a8_async_kernel": "linear_w8a8",
    "hopper.geglu_linear_w8a8_async_kernel": "geglu_linear_w8a8",
    "hopper_conv.conv_w8a8_async_kernel": "conv_w8a8",
}
"""Kernel → the table whose rows were measured with it."""
_TILE: Final = ("BLOCK_M", "BLOCK_N", "BLOCK_K", "SECOND_N")


def tile_seconds(launch: Launch, product: Product) -> float | None:
    """Seconds that a multiprocessor spends on one tile; None: no such tile was measured."""
    if (op := TABLES.get(launch.kernel)) is None:
        return None
    residual = int(launch.arguments.get("residual") is not None)
    for row in table(op):
        same = _tile(row.config) == _tile(launch.constants) and row.config["num_stages"] == launch.num_stages
        if same and "TILE_NS" in row.config and row.shape.get("residual", residual) == residual:
            return (row.config["TILE_NS"] + product.steps * row.config["STEP_NS"]) * 1e-9
    return None


def _tile(config: Mapping[str, object]) -> list[object]:
    return [config.get(name, 0) for name in _TILE]
