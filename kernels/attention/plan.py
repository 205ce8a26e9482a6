"""Launches of attention, from shapes and dtypes alone."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from ..architecture import Architecture
from ..configs import lookup
from ..errors import require
from ..launch import Buffer, Constant, Launch, LaunchPlan, cdiv

HEAD_DIM: Final = 64
KEY_BLOCK: Final = 64  # keys that share a scale; part of what attention_int8 computes, so the same everywhere
SHORT: Final = 256  # up to so many keys (three prompts of 77) the queries' traffic is what costs
# Tokens that one program sums for the keys' mean, and how many at a time.
_SPAN: Final = 256
_SUM_BLOCK: Final = 64
_PARTIAL_BLOCK: Final = 16
_MAX_STRIDE: Final = 2**31 // 128  # blocks have at most 128 tokens
_FLOATS: Final = ("float16", "bfloat16")


def plan_attention(
    *,
    batch: int,
    m: int,
    n: int,
    heads: int,
    arch: Architecture,
    dtype: str = "float16",
    causal: bool = False,
    q_stride: int | None = None,
    k_stride: int | None = None,
    v_stride: int | None = None,
    quantized: bool = False,
) -> LaunchPlan:
    """The launch plan of `attention`: q (batch, m, C), k and v (batch, n, C) to (batch, m, C), C = heads * 64.

    `batch`: pictures. `m`: queries of a picture. `n`: keys of a picture. `heads`: of 64 columns each. `arch`: what it
    runs on. `dtype`: of everything, float16 or bfloat16. `causal`: query i sees keys 0 to i only. `q_stride`: elements
    from one token of q to the next, where q is a slice of columns of a wider tensor (that of a linear which makes q, k
    and v at once): its pointer is that of its first element. `k_stride`: the same for k. `v_stride`: the same for v.
    `quantized`: the result, times `inverse` (C,) of each channel, in int8.

    Raises `UnsupportedShapeError`: a constraint does not hold.
    """
    channels = heads * HEAD_DIM
    strides = {"q_stride": q_stride or channels, "k_stride": k_stride or channels, "v_stride": v_stride or channels}
    _check("attention", batch, m, n, heads, dtype, arch, strides)
    reason = "query i of a causal attention sees keys 0 to i, so there are as many of each"
    require(not causal or m == n, "attention", {"causal": causal, "m": m, "n": n}, reason)
    # By one picture's rows, not the batch's: sums run in the order of blocks, and a picture is the same in any batch.
    config = lookup("attention", arch, heads * m, short=int(n <= SHORT))
    launch = Launch(
        kernel="attention.attention_kernel",
        arguments={
            "q": "q", "k": "k", "v": "v", "inverse": _inverse(quantized), "out": "out",
            "M": m, "N": n, "channels": channels, **strides,
        },
        constants={**_constants(config, n), "CAUSAL": causal},
        grid=(cdiv(m, config["BLOCK_M"]), heads, batch),
        num_warps=config["num_warps"],
        num_stages=config["num_stages"],
        varying=frozenset({"M", "N"}),
        instruction="f16" if dtype == "float16" else "bf16",
    )  # fmt: skip
    return LaunchPlan(
        op="attention",
        inputs=_inputs(batch, m, n, channels, dtype, quantized),
        outputs={"out": Buffer(shape=(batch, m, channels), dtype="int8" if quantized else dtype)},
        launches=(launch,),
        operations={dtype: 4 * batch * m * n * channels},
    )


def plan_attention_int8(
    *,
    batch: int,
    m: int,
    n: int,
    heads: int,
    arch: Architecture,
    dtype: str = "float16",
    accumulate_half: bool = False,
    q_stride: int | None = None,
    k_stride: int | None = None,
    v_stride: int | None = None,
    quantized: bool = False,
) -> LaunchPlan:
    """The launch plan of `attention_int8`: sums of the keys, int8 keys, attention. Arguments as for `plan_attention`.

    `batch`: pictures. `m`: queries of a picture. `n`: keys of a picture. `heads`: of 64 columns each. `arch`: what it
    runs on. `dtype`: of everything, float16 or bfloat16. `accumulate_half`: sum shares times values in float16 within
    64 keys; float16 only. `q_stride`: elements from one token of q to the next. `k_stride`: the same for k. `v_stride`:
    the same for v. `quantized`: the result, times `inverse` (C,) of each channel, in int8.

    Raises `UnsupportedShapeError`: a constraint does not hold.
    """
    channels = heads * HEAD_DIM
    strides = {"q_stride": q_stride or channels, "k_stride": k_stride or channels, "v_stride": v_stride or channels}
    _check("attention_int8", batch, m, n, heads, dtype, arch, strides)
    shape = {"dtype": dtype, "accumulate_half": accumulate_half}
    reason = "there is no matrix instruction that sums bfloat16 in 16 bits; use float16, or leave accumulate_half off"
    require(dtype == "float16" or not accumulate_half, "attention_int8", shape, reason)
    # The code for keys that fill no block takes registers, of which the largest tiles have none to spare.
    config = lookup("attention_int8", arch, heads * m, whole=int(n % KEY_BLOCK == 0))
    blocks, spans = cdiv(n, KEY_BLOCK), cdiv(n, _SPAN)
    sums = Launch(
        kernel="attention.key_sums_kernel",
        arguments={"k": "k", "partial": "partial", "N": n, "channels": channels, "k_stride": strides["k_stride"]},
        constants={"SPAN": _SPAN, "BLOCK": _SUM_BLOCK},
        grid=(spans, heads, batch),
        num_warps=4,
        num_stages=1,
        varying=frozenset({"N"}),
    )
    quantize = Launch(
        kernel="attention.quantize_keys_kernel",
        arguments={
            "k": "k", "partial": "partial", "keys": "keys", "key_scale": "key_scale",
            "N": n, "spans": spans, "channels": channels, "k_stride": strides["k_stride"],
        },
        constants={"KEY_BLOCK": KEY_BLOCK, "BLOCK": _PARTIAL_BLOCK},
        grid=(blocks, heads, batch),
        num_warps=4,
        num_stages=1,
        varying=frozenset({"N", "spans"}),
    )  # fmt: skip
    attend = Launch(
        kernel="attention.attention_int8_kernel",
        arguments={
            "q": "q", "keys": "keys", "key_scale": "key_scale", "v": "v", "inverse": _inverse(quantized), "out": "out",
            "M": m, "N": n, "channels": channels, "q_stride": strides["q_stride"], "v_stride": strides["v_stride"],
        },
        constants={**_constants(config, n), "KEY_BLOCK": KEY_BLOCK, "ACCUMULATE_HALF": accumulate_half},
        grid=(cdiv(m, config["BLOCK_M"]), heads, batch),
        num_warps=config["num_warps"],
        num_stages=config["num_stages"],
        varying=frozenset({"M", "N"}),
        instruction="s8",
    )  # fmt: skip
    return LaunchPlan(
        op="attention_int8",
        inputs=_inputs(batch, m, n, channels, dtype, quantized),
        outputs={"out": Buffer(shape=(batch, m, channels), dtype="int8" if quantized else dtype)},
        scratch={
            "partial": Buffer(shape=(batch, spans, channels), dtype="float32"),
            "keys": Buffer(shape=(batch, heads, blocks * KEY_BLOCK, HEAD_DIM), dtype="int8"),
            "key_scale": Buffer(shape=(batch, heads, blocks), dtype="float32"),
        },
        launches=(sums, quantize, attend),
        operations={"int8": 2 * batch * m * n * channels, dtype: 2 * batch * m * n * channels},
    )


def plan_self_attention(
    *,
    batch: int,
    m: int,
    n: int,
    heads: int,
    arch: Architecture,
    dtype: str = "float16",
    q_stride: int | None = None,
    k_stride: int | None = None,
    v_stride: int | None = None,
    quantized: bool = False,
) -> LaunchPlan:
    """The launch plan of `self_attention`: that of the op which computes it (`fastest_form`). Arguments as for these.

    `batch`: pictures. `m`: queries of a picture. `n`: keys of a picture. `heads`: of 64 columns each. `arch`: what it
    runs on. `dtype`: of everything, float16 or bfloat16. `q_stride`: elements from one token of q to the next.
    `k_stride`: the same for k. `v_stride`: the same for v.

    Raises `UnsupportedShapeError`: a constraint does not hold.
    """
    op, more = fastest_form(arch, dtype)
    shape = {"batch": batch, "m": m, "n": n, "heads": heads, "dtype": dtype}
    strides = {"q_stride": q_stride, "k_stride": k_stride, "v_stride": v_stride}
    plan = plan_attention_int8 if op == "attention_int8" else plan_attention
    made: LaunchPlan = plan(**shape, **strides, **more, quantized=quantized, arch=arch)  # type: ignore[arg-type]
    return replace(made, op="self_attention")


def fastest_form(arch: Architecture, dtype: str = "float16") -> tuple[str, dict[str, bool]]:
    """The op that attends among many tokens fastest on an architecture, and its options.

    Where sums in float16 take half the time, 8-bit scores with such sums: 6 parts of matrix instructions' time where
    16-bit ones take 16. An H100 sums both alike, and took 0.73 (1,024 tokens) to 0.92 (4,096) of their time for 16-bit
    ones.
    """
    if arch.half_sums:
        return "attention_int8", {"accumulate_half": dtype == "float16"}
    return "attention", {}


def _inputs(batch: int, m: int, n: int, channels: int, dtype: str, quantized: bool) -> dict[str, Buffer]:
    keys = Buffer(shape=(batch, n, channels), dtype=dtype)
    more = {"inverse": Buffer(shape=(channels,), dtype="float32")} if quantized else {}
    return {"q": Buffer(shape=(batch, m, channels), dtype=dtype), "k": keys, "v": keys, **more}


def _inverse(quantized: bool) -> str | None:
    return "inverse" if quantized else None


def _constants(config: Mapping[str, int], n: int) -> dict[str, Constant]:
    # Two variants and no more, whatever the number of keys: with code for keys that fill no block, or without.
    return {"BLOCK_M": config["BLOCK_M"], "BLOCK_N": config["BLOCK_N"], "TAIL": n % config["BLOCK_N"] != 0}


def _check(
    op: str, batch: int, m: int, n: int, heads: int, dtype: str, arch: Architecture, strides: Mapping[str, int]
) -> None:
    shape = {"batch": batch, "m": m, "n": n, "heads": heads, "dtype": dtype, "sm": arch.sm, **strides}
    require(batch >= 1 and m >= 1 and n >= 1 and heads >= 1, op, shape, "there must be at least one of each")
    require(batch <= 65_535 and heads <= 65_535, op, shape, "a grid has at most 65535 programs in y and z")
    require(dtype in _FLOATS, op, shape, f"q, k, v and the result are {' or '.join(_FLOATS)}")
    for name, stride in strides.items():
        require(stride >= heads * HEAD_DIM, op, shape, f"{name} is less than the {heads} heads of 64 columns")
        require(stride % 16 == 0, op, shape, f"{name} must be a multiple of 16, so that every token begins at 16 bytes")
        require(stride < _MAX_STRIDE, op, shape, f"{name} would let offsets within a block of tokens pass 32 bits")
