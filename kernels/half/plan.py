"""Launches of the float16 linear and convolution, from shapes and dtypes alone."""

from collections.abc import Mapping, Sequence
from typing import Final

from ..architecture import Architecture
from ..configs import lookup
from ..conv.plan import SUMS_AT_ONCE, check_geometry, output_size, seen_size, split_sum, sum_launch
from ..errors import require
from ..launch import Buffer, Launch, LaunchPlan, cdiv

OUTPUTS: Final = ("float16", "float32")
ACTIVATIONS: Final[Mapping[str | None, int]] = {None: 0, "gelu": 1, "quick_gelu": 2, "silu": 3}
FEW: Final = 16  # output channels that one instruction's width holds: conv_out's 4 and 3
_LEAST_STEP: Final = 16  # depth of one matrix instruction


def plan_linear_f16(
    *,
    m: int,
    n: int,
    k: int,
    arch: Architecture,
    bias: bool = True,
    residual: bool = False,
    activation: str | None = None,
    out_dtype: str = "float16",
) -> LaunchPlan:
    """The launch plan of `linear_f16`: x (m, k) by weight (n, k) to (m, n).

    Raises `UnsupportedShapeError`: a constraint does not hold.
    """
    op = "linear_f16"
    shape = {"m": m, "n": n, "k": k, "activation": activation, "out_dtype": out_dtype}
    require(m >= 1 and n >= 1 and k >= 1, op, shape, "there must be at least one row, column and product")
    known = ", ".join(name for name in ACTIVATIONS if name)
    require(activation in ACTIVATIONS, op, shape, f"the activation is None or one of {known}")
    require(out_dtype in OUTPUTS, op, shape, f"the output is {' or '.join(OUTPUTS)}")
    # Rows that begin anywhere are read and written by single elements, whose addresses fill the registers.
    config = lookup(op, arch, m, k=k, n=n, loose=int(k % 16 != 0 or n % 16 != 0))
    inputs = {"x": Buffer(shape=(m, k), dtype="float16"), "weight": Buffer(shape=(n, k), dtype="float16")}
    if bias:
        inputs["bias"] = Buffer(shape=(n,), dtype="float16")
    if residual:
        inputs["residual"] = Buffer(shape=(m, n), dtype="float16")
    launch = Launch(
        kernel="half.linear_f16_kernel",
        arguments={
            **{name: name if name in inputs else None for name in ("x", "weight", "bias", "residual")},
            "out": "out", "M": m, "N": n, "K": k,
        },
        constants={
            **{name: config[name] for name in ("BLOCK_M", "BLOCK_N", "BLOCK_K", "GROUP_M")},
            "HALVES": _in_halves(config),
            "EVEN_K": k % config["BLOCK_K"] == 0,
            "ACTIVATION": ACTIVATIONS[activation],
        },
        grid=(cdiv(m, config["BLOCK_M"]) * cdiv(n, config["BLOCK_N"]), 1, 1),
        num_warps=config["num_warps"],
        num_stages=config["num_stages"],
        varying=frozenset({"M"}),
        instruction="f16",
    )  # fmt: skip
    return LaunchPlan(
        op=op,
        inputs=inputs,
        outputs={"out": Buffer(shape=(m, n), dtype=out_dtype)},
        launches=(launch,),
        operations={"float16": 2 * m * n * k},
    )


def plan_conv_f16(
    *,
    b: int,
    h: int,
    w: int,
    c: int,
    n: int,
    arch: Architecture,
    c2: int = 0,
    kernel: int = 3,
    stride: int = 1,
    upsample_to: Sequence[int] | None = None,
    out_dtype: str = "float16",
    bias: bool = True,
    time: bool = False,
    residual: bool = False,
) -> LaunchPlan:
    """The launch plan of `conv_f16`: pictures (b, h, w, c), and (b, h, w, c2) beside them, to (b, ho, wo, n).

    Few rows and a deep sum are shared out as in `conv_w8a8`; the shares add up in a fixed order.

    Raises `UnsupportedShapeError`: a constraint does not hold.
    """
    op = "conv_f16"
    seen = seen_size(h, w, upsample_to)
    shape = {
        "b": b, "h": h, "w": w, "c": c, "c2": c2, "n": n, "kernel": kernel, "stride": stride, "seen": seen,
        "out_dtype": out_dtype,
    }  # fmt: skip
    hint = "pad conv_in's with zeros"
    check_geometry(op, shape, b=b, h=h, w=w, c=c, c2=c2, n=n, kernel=kernel, stride=stride, seen=seen, hint=hint)
    require(out_dtype in OUTPUTS, op, shape, f"the output is {' or '.join(OUTPUTS)}")
    ho, wo = output_size(seen, stride=stride)
    m, depth = b * ho * wo, kernel * kernel * (c + c2)
    # As if for one picture with guidance, whatever the batch: shares decide in which order float sums run, and a
    # picture is the same in any batch.
    pair = 2 * ho * wo
    config = lookup(op, arch, pair, n=n, few=int(n <= FEW))
    block_k = _step(config["BLOCK_K"], c, c2)
    inputs = {
        "x": Buffer(shape=(b, h, w, c), dtype="float16"),
        "weight": Buffer(shape=(n, kernel, kernel, c + c2), dtype="float16"),
    }
    if c2:
        inputs["x2"] = Buffer(shape=(b, h, w, c2), dtype="float16")
    if bias:
        inputs["bias"] = Buffer(shape=(n,), dtype="float16")
    if time:
        inputs["time"] = Buffer(shape=(b, n), dtype="float16")
    if residual:
        inputs["residual"] = Buffer(shape=(b, ho, wo, n), dtype="float16")
    tiles = cdiv(m, config["BLOCK_M"]) * cdiv(n, config["BLOCK_N"])
    steps = kernel * kernel * (c // block_k)
    alone = kernel == 1 or c2  # sums of a 1x1 kernel are not deep, and two pictures go into one sum
    programs = arch.programs(config["PROGRAMS"])
    typical = cdiv(pair, config["BLOCK_M"]) * cdiv(n, config["BLOCK_N"])
    splits = 1 if alone else split_sum(tiles=typical, steps=steps, depth=depth, programs=programs)
    given = {name: name if name in inputs else None for name in ("x", "x2", "weight", "bias", "time", "residual")}
    multiply = Launch(
        kernel="half.conv_f16_kernel",
        arguments={
            **(given if splits == 1 else dict.fromkeys(given) | {"x": "x", "weight": "weight"}),
            "out": "out" if splits == 1 else "sums",
            "B": b, "H": h, "W": w, "SEEN_H": seen[0], "SEEN_W": seen[1], "C": c, "C2": c2, "N": n,
        },
        constants={
            "KERNEL": kernel, "STRIDE": stride, "UPSAMPLE": upsample_to is not None, "SHARED": splits > 1,
            **{name: config[name] for name in ("BLOCK_M", "BLOCK_N", "GROUP_M")},
            "BLOCK_K": block_k, "HALVES": _in_halves(config),
        },
        grid=(tiles, splits, 1),
        num_warps=config["num_warps"],
        num_stages=config["num_stages"],
        varying=frozenset({"B", "H", "W", "SEEN_H", "SEEN_W"}),
        instruction="f16",
    )  # fmt: skip
    shared = splits > 1
    return LaunchPlan(
        op=op,
        inputs=inputs,
        outputs={"out": Buffer(shape=(b, ho, wo, n), dtype=out_dtype)},
        launches=(multiply, sum_launch(given, b=b, pixels=ho * wo, n=n, splits=splits)) if shared else (multiply,),
        scratch={"sums": Buffer(shape=(splits, m, n), dtype="float32")} if shared else {},
        operations={"float16": 2 * m * n * depth},
    )


def _step(block_k: int, c: int, c2: int) -> int:
    """The table's depth of a step, halved until it divides the channels, which are multiples of 16."""
    while block_k > _LEAST_STEP and (c % block_k or c2 % block_k):
        block_k //= 2
    return block_k


def _in_halves(config: Mapping[str, int]) -> bool:
    """Whether a thread holds so many sums that what is added to them fits its registers by halves only."""
    return config["BLOCK_M"] * config["BLOCK_N"] > SUMS_AT_ONCE * 32 * config["num_warps"]
