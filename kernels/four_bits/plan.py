"""Launches of the linears on 4-bit weights and 8-bit activations, from shapes and dtypes alone.

Weights are those of `weight_only` in groups of 64, so an engine that has them can be multiplied either way. Scales go
on a group's sum, a float32 multiply-add for 64 products: what is multiplied stays 8 bits.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from ..architecture import Architecture
from ..configs import lookup
from ..errors import require
from ..launch import Buffer, Launch, LaunchPlan, cdiv
from ..weight_only.plan import RUN

FLOATS: Final = ("float16", "bfloat16", "float32")
_POINTERS: Final = ("x", "x_scale", "weight", "weight_scale", "bias")


def plan_linear_w4a8(
    *,
    m: int,
    n: int,
    k: int,
    arch: Architecture,
    out_dtype: str = "float16",
    bias: bool = True,
    residual: bool = False,
) -> LaunchPlan:
    """The launch plan of `linear_w4a8`: x (m, k) by packed weight (n, k/2) with scale (n, k/64) to (m, n).

    Raises `UnsupportedShapeError`: a constraint does not hold.
    """
    _check("linear_w4a8", m, n, k, out_dtype, arch)
    inputs = _operands(m, n, k, out_dtype, bias)
    if residual:
        inputs["residual"] = Buffer(shape=(m, n), dtype=out_dtype)
    return LaunchPlan(
        op="linear_w4a8",
        inputs=inputs,
        outputs={"out": Buffer(shape=(m, n), dtype=out_dtype)},
        launches=(_launch("linear_w4a8", (*_POINTERS, "residual"), inputs, m, n, k, arch),),
        operations={"int8": 2 * m * n * k},
    )


def plan_geglu_linear_w4a8(
    *,
    m: int,
    n: int,
    k: int,
    arch: Architecture,
    out_dtype: str = "float16",
    bias: bool = True,
    quantized: bool = False,
) -> LaunchPlan:
    """The launch plan of `geglu_linear_w4a8`: x (m, k) by packed weight (2n, k/2), value rows first, to (m, n).

    `quantized`: the result, times `inverse` (n,) of each column, in int8.

    Raises `UnsupportedShapeError`: a constraint does not hold.
    """
    _check("geglu_linear_w4a8", m, n, k, out_dtype, arch)
    inputs = _operands(m, 2 * n, k, out_dtype, bias)
    if quantized:
        inputs["inverse"] = Buffer(shape=(n,), dtype="float32")
    return LaunchPlan(
        op="geglu_linear_w4a8",
        inputs=inputs,
        outputs={"out": Buffer(shape=(m, n), dtype="int8" if quantized else out_dtype)},
        launches=(_launch("geglu_linear_w4a8", (*_POINTERS, "inverse"), inputs, m, n, k, arch),),
        operations={"int8": 4 * m * n * k},
    )


def _operands(m: int, n: int, k: int, out_dtype: str, bias: bool) -> dict[str, Buffer]:
    operands = {
        "x": Buffer(shape=(m, k), dtype="int8"),
        "x_scale": Buffer(shape=(m,), dtype="float32"),
        "weight": Buffer(shape=(n, k // 2), dtype="uint8"),
        "weight_scale": Buffer(shape=(n, k // RUN), dtype="float16"),
    }
    return {**operands, "bias": Buffer(shape=(n,), dtype=out_dtype)} if bias else operands


def _launch(
    op: str, pointers: Sequence[str], inputs: Mapping[str, Buffer], m: int, n: int, k: int, arch: Architecture
) -> Launch:
    config = lookup(op, arch, m, k=k, n=n)
    return Launch(
        kernel=f"four_bits.{op}_kernel",
        arguments={
            **{name: name if name in inputs else None for name in pointers}, "out": "out", "M": m, "N": n, "K": k
        },
        constants={name: config[name] for name in ("BLOCK_M", "BLOCK_N", "GROUP_M")},
        grid=(cdiv(m, config["BLOCK_M"]) * cdiv(n, config["BLOCK_N"]), 1, 1),
        num_warps=config["num_warps"],
        num_stages=config["num_stages"],
        varying=frozenset({"M"}),
        instruction="s8",
    )  # fmt: skip


def _check(op: str, m: int, n: int, k: int, out_dtype: str, arch: Architecture) -> None:
    shape = {"m": m, "n": n, "k": k, "out_dtype": out_dtype, "sm": arch.sm}
    require(m >= 1 and n >= 1, op, shape, "there must be at least one row and one column")
    require(k >= RUN and k % RUN == 0, op, shape, f"weights lie in runs of {RUN} along the inputs")
    require(out_dtype in FLOATS, op, shape, f"the output is one of {', '.join(FLOATS)}")
