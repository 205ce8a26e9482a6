"""What a program of a launch multiplies, read off the launch: the tile, its steps, and the rates of its instructions.

Nothing here knows which op planned a launch: kernel, arguments, constants and grid say all.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

from pocketxl.kernels.attention.plan import HEAD_DIM
from pocketxl.kernels.launch import Launch, cdiv
from pocketxl.kernels.weight_only.plan import RUN

from .gpus import Gpu

GROUPED = "four_bits."
"""Kernels whose steps are groups of weights."""
RATED = frozenset({"s8", "f16", "bf16"})
"""Operands whose rates `Gpu` has; those of bfloat16 are float16's."""


@dataclass(frozen=True, kw_only=True)
class Product:
    """`steps` products of (rows, depth) by (depth, columns), by each of the `programs` of a launch.

    Beside them `sharers` programs, each of `share` steps: of tiles whose sums several share.
    """

    programs: int
    rows: int
    columns: int
    depth: int
    steps: int
    sharers: int = 0
    share: int = 0

    @property
    def operations_of_step(self) -> int:
        """Twice the multiply-adds."""
        return 2 * self.rows * self.columns * self.depth


@dataclass(frozen=True, kw_only=True)
class Attended:
    """Scores and weighted values of `rows` queries and `keys` keys, by each of the `programs`; heads of 64."""

    programs: int
    rows: int
    keys: int
    eight_bits: bool
    half_sums: bool

    @property
    def operations(self) -> int:
        """Twice the multiply-adds of one program's scores, which are as many as those of its values."""
        return 2 * self.rows * self.keys * HEAD_DIM

    def clocks(self, gpu: Gpu) -> float:
        """Clocks of a multiprocessor's tensor cores for one program: both halves, each at its own rate."""
        scores = gpu.int8_per_clock if self.eight_bits else gpu.float16_per_clock
        values = gpu.float16_short_per_clock if self.half_sums else gpu.float16_per_clock
        return self.operations / scores + self.operations / values


def product_of(launch: Launch) -> Product | Attended | None:
    """What each program of a launch multiplies; None: it only reads, computes and writes.

    Raises `ValueError`: it multiplies, and in no way that is known here.
    """
    if launch.instruction is None:
        return None
    if launch.instruction not in RATED:
        raise ValueError(f"{launch.kernel}: no rate of {launch.instruction} is stated for any GPU")
    programs, constants = prod(launch.grid), launch.constants
    if "BLOCK_K" in constants or launch.kernel.startswith(GROUPED):
        depth = _number(constants, "BLOCK_K", RUN)
        columns = _number(constants, "BLOCK_N") + _number(constants, "SECOND_N", 0)
        if "geglu" in launch.kernel:  # a tile of values and one of gates
            columns *= 2
        made = Product(
            programs=programs,
            rows=_number(constants, "BLOCK_M"),
            columns=columns,
            depth=depth,
            steps=_steps(launch, depth),
        )
        return _shared(made, launch) if launch.arguments.get("sharers") else made
    if launch.kernel in ("attention.attention_kernel", "attention.attention_int8_kernel"):
        block = _number(constants, "BLOCK_N")
        return Attended(
            programs=programs,
            rows=_number(constants, "BLOCK_M"),
            keys=cdiv(_number(launch.arguments, "N"), block) * block,
            eight_bits=launch.instruction == "s8",
            half_sums=bool(constants.get("ACCUMULATE_HALF", False)),
        )
    raise ValueError(f"{launch.kernel}: nothing is known here of how it multiplies")


def _shared(product: Product, launch: Launch) -> Product:
    """The product, with the steps of the tiles from `whole` on in the hands of `sharers`."""
    whole, sharers = _number(launch.arguments, "whole"), _number(launch.arguments, "sharers")
    share = cdiv((tiles_of(launch) - whole) * product.steps, sharers)
    return replace(product, programs=whole, sharers=sharers, share=share)


def tiles_of(launch: Launch) -> int:
    """Tiles of a linear layer's result."""
    sides = (("M", "BLOCK_M"), ("N", "BLOCK_N"))
    return prod(cdiv(_number(launch.arguments, size), _number(launch.constants, block)) for size, block in sides)


def _steps(launch: Launch, depth: int) -> int:
    """Steps of one program: a linear's depth, or taps times channels, shared out where the grid has a second side."""
    if "K" in launch.arguments:
        return cdiv(_number(launch.arguments, "K"), depth)
    if "KERNEL" in launch.constants:
        pictures = (_number(launch.arguments, name) for name in ("C", "C2"))
        steps = _number(launch.constants, "KERNEL") ** 2 * sum(cdiv(channels, depth) for channels in pictures)
        return cdiv(steps, launch.grid[1])
    raise ValueError(f"{launch.kernel}: neither K nor KERNEL says how deep it multiplies")


def _number(found: Mapping[str, object], name: str, default: int | None = None) -> int:
    value = found.get(name, default)
    assert isinstance(value, int), (name, value)
    return value
