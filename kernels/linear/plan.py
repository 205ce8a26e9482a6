"""Launches of the 8-bit linears, from shapes and dtypes alone."""

from collections.abc import Mapping
from typing import Final

from ..architecture import Architecture
from ..configs import lookup
from ..configs.tiles import fits_depth
from ..errors import KernelError, require
from ..launch import Buffer, Constant, Launch, LaunchPlan, cdiv
from .shares import Shares, share_out

# int32 sums of int8 products are exact up to this depth.
MAX_K: Final = (2**31 - 1) // (128 * 128)
SUMS_AT_ONCE: Final = 64
FLOATS: Final = ("float16", "bfloat16", "float32")


def plan_linear_w8a8(
    *,
    m: int,
    n: int,
    k: int,
    arch: Architecture,
    dtype: str = "int8",
    out_dtype: str = "float16",
    bias: bool = True,
    residual: bool = False,
    static: bool = False,
) -> LaunchPlan:
    """The launch plan of `linear_w8a8`: x (m, k) by weight (n, k) to (m, n).

    `static`: all of x has one scale, which is in the weight's.

    Raises `UnsupportedShapeError`: a constraint does not hold.
    """
    _check("linear_w8a8", m, n, k, dtype, out_dtype, arch)
    config = lookup("linear_w8a8", arch, m, k=k, n=n, residual=int(residual), **_kind(dtype, out_dtype))
    inputs = _operands(m, n, k, dtype, out_dtype, bias)
    if static:
        del inputs["x_scale"]
    if residual:
        inputs["residual"] = Buffer(shape=(m, n), dtype=out_dtype)
    launches, scratch = (
        _overlapping(inputs, config, m, n, k)
        if _overlaps(config)
        else _shared_out(inputs, config, m, n, k, arch, dtype)
    )
    return LaunchPlan(
        op="linear_w8a8",
        inputs=inputs,
        outputs={"out": Buffer(shape=(m, n), dtype=out_dtype)},
        launches=launches,
        scratch=scratch,
        operations={dtype: 2 * m * n * k},
    )


def plan_geglu_linear_w8a8(
    *,
    m: int,
    n: int,
    k: int,
    arch: Architecture,
    dtype: str = "int8",
    out_dtype: str = "float16",
    bias: bool = True,
    quantized: bool = False,
) -> LaunchPlan:
    """The launch plan of `geglu_linear_w8a8`: x (m, k) by weight (2n, k), value rows first, to (m, n).

    `quantized`: the result, times `inverse` (n,) of each column, in int8.

    Raises `UnsupportedShapeError`: a constraint does not hold.
    """
    _check("geglu_linear_w8a8", m, n, k, dtype, out_dtype, arch)
    config = lookup("geglu_linear_w8a8", arch, m, k=k, n=n, **_kind(dtype, out_dtype))
    inputs = _operands(m, 2 * n, k, dtype, out_dtype, bias)
    if quantized:
        inputs["inverse"] = Buffer(shape=(n,), dtype="float32")
    launch = Launch(
        kernel="hopper.geglu_linear_w8a8_async_kernel" if _overlaps(config) else "linear.geglu_linear_w8a8_kernel",
        arguments={
            **{name: name if name in inputs else None for name in (*_POINTERS, "bias", "inverse")},
            "out": "out", "M": m, "N": n, "K": k,
        },
        constants=_constants(config, k),
        grid=(cdiv(m, config["BLOCK_M"]) * cdiv(n, config["BLOCK_N"]), 1, 1),
        num_warps=config["num_warps"],
        num_stages=config["num_stages"],
        varying=frozenset({"M"}),
        instruction="s8" if dtype == "int8" else "e4m3",
    )  # fmt: skip
    return LaunchPlan(
        op="geglu_linear_w8a8",
        inputs=inputs,
        outputs={"out": Buffer(shape=(m, n), dtype="int8" if quantized else out_dtype)},
        launches=(launch,),
        operations={dtype: 4 * m * n * k},
    )


_POINTERS: Final = ("x", "x_scale", "weight", "weight_scale")
_ADDED: Final = ("bias", "residual")
_ROWS: Final = 8  # of sums that a program adds up: nothing to tune, it only reads and writes

Launches = tuple[tuple[Launch, ...], dict[str, Buffer]]
"""With the scratch that they need."""


def _overlapping(inputs: Mapping[str, Buffer], config: Mapping[str, int], m: int, n: int, k: int) -> Launches:
    """Hopper's own kernel: every tile has a program."""
    second = config.get("SECOND_N", 0)
    launch = Launch(
        kernel="hopper.linear_w8a8_async_kernel",
        arguments={
            **{name: name if name in inputs else None for name in (*_POINTERS, *_ADDED)},
            "out": "out", "M": m, "N": n, "K": k,
        },
        constants={**_constants(config, k), "SECOND_N": second},
        grid=(cdiv(m, config["BLOCK_M"]) * cdiv(n, config["BLOCK_N"] + second), 1, 1),
        num_warps=config["num_warps"],
        num_stages=config["num_stages"],
        varying=frozenset({"M"}),
        instruction="s8",
    )  # fmt: skip
    return (launch,), {}


def _shared_out(
    inputs: Mapping[str, Buffer], config: Mapping[str, int], m: int, n: int, k: int, arch: Architecture, dtype: str
) -> Launches:
    """Triton's kernel: tiles that fill no round of multiprocessors are shared out, where sums are exact."""
    block_m, block_n, steps = config["BLOCK_M"], config["BLOCK_N"], cdiv(k, config["BLOCK_K"])
    tiles = cdiv(m, block_m) * cdiv(n, block_n)
    shares = Shares(whole=tiles)
    if dtype == "int8":
        shares = share_out(
            tiles=tiles, area=block_m * block_n, steps=steps, depth=k, arch=arch
        )  # fmt: skip
    given = {name: name if name in inputs else None for name in (*_POINTERS, *_ADDED)}
    shared = {"whole": shares.whole, "sharers": shares.sharers}
    multiply = Launch(
        kernel="linear.linear_w8a8_kernel",
        arguments={
            **given, "out": "out", "sums": "sums", "M": m, "N": n, "K": k, **shared,
        },
        constants={**_constants(config, k), "HALVES": _in_halves(config)},
        grid=(shares.whole + shares.sharers, 1, 1),
        num_warps=config["num_warps"],
        num_stages=config["num_stages"],
        varying=frozenset({"M", "whole", "sharers"}),
        instruction="s8" if dtype == "int8" else "e4m3",
    )  # fmt: skip
    if not shares.sharers:  # one binary serves both, so that it has a place for sums in any case
        return (multiply,), {"sums": Buffer(shape=(1,), dtype="int32")}
    add = Launch(
        kernel="linear.linear_sum_kernel",
        arguments={
            "sums": "sums", **{name: given[name] for name in ("x_scale", "weight_scale", *_ADDED)}, "out": "out",
            "M": m, "N": n, **shared, "steps": steps,
        },
        constants={**{name: config[name] for name in ("BLOCK_M", "BLOCK_N", "GROUP_M")}, "ROWS": _ROWS},
        grid=(tiles - shares.whole, block_m // _ROWS, 1),
        num_warps=4,
        num_stages=1,
        varying=frozenset({"M", "whole", "sharers", "steps"}),
    )  # fmt: skip
    parts = shares.sharers + tiles - shares.whole - 1
    return (multiply, add), {"sums": Buffer(shape=(parts, block_m, block_n), dtype="int32")}


def _operands(m: int, n: int, k: int, dtype: str, out_dtype: str, bias: bool) -> dict[str, Buffer]:
    operands = {
        "x": Buffer(shape=(m, k), dtype=dtype),
        "x_scale": Buffer(shape=(m,), dtype="float32"),
        "weight": Buffer(shape=(n, k), dtype=dtype),
        "weight_scale": Buffer(shape=(n,), dtype="float32"),
    }
    if bias:
        operands["bias"] = Buffer(shape=(n,), dtype=out_dtype)
    return operands


def _kind(dtype: str, out_dtype: str) -> dict[str, int]:
    """What a table is asked besides sizes: Hopper's tiles are for int8, without registers for results of 32 bits."""
    return {"fp8": int(dtype != "int8"), "wide": int(out_dtype == "float32")}


def _constants(config: Mapping[str, int], k: int) -> dict[str, Constant]:
    tile = {name: config[name] for name in ("BLOCK_M", "BLOCK_N", "BLOCK_K", "GROUP_M")}
    if not _overlaps(config):
        return {**tile, "EVEN_K": k % config["BLOCK_K"] == 0}
    if not fits_depth(config, k):
        raise KernelError(
            f"a tile with OVERLAP does not fit k = {k}: it takes whole steps, and enough to fill its stages"
        )
    return {**tile, "STAGES": config["num_stages"]}


def _overlaps(config: Mapping[str, int]) -> bool:
    """Whether a row of the table is for the Hopper kernels, which keep a step of matrix instructions in flight."""
    return bool(config.get("OVERLAP", 0))


def _in_halves(config: Mapping[str, int]) -> bool:
    """Whether a thread holds so many sums that what is added to them fits its registers by halves only."""
    return config["BLOCK_M"] * config["BLOCK_N"] > SUMS_AT_ONCE * 32 * config["num_warps"]


def _check(op: str, m: int, n: int, k: int, dtype: str, out_dtype: str, arch: Architecture) -> None:
    shape = {"m": m, "n": n, "k": k, "dtype": dtype, "out_dtype": out_dtype, "sm": arch.sm}
    require(m >= 1 and n >= 1, op, shape, "there must be at least one row and one column")
    require(k >= 16 and k % 16 == 0, op, shape, "k must be a multiple of 16, so that rows begin at 16 bytes")
    require(k <= MAX_K, op, shape, f"sums are exact in 32 bits up to k = {MAX_K} only")
    require(dtype in ("int8", "float8_e4m3fn"), op, shape, "operands are int8 or float8_e4m3fn")
    require(dtype == "int8" or arch.fp8, op, shape, "float8 matrix instructions begin with sm_89; use int8")
    require(out_dtype in FLOATS, op, shape, f"the output is one of {', '.join(FLOATS)}")
