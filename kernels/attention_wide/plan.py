"""Launches of attention with one wide head, from shapes and dtypes alone."""

from collections.abc import Mapping
from math import e, log2
from typing import Final

from ..architecture import Architecture
from ..configs import lookup
from ..errors import require
from ..launch import Buffer, Launch, LaunchPlan, cdiv

SCRATCH: Final = 256 * 2**20
"""Bytes of shares in memory at a time. A picture of 1024² takes two rounds, each of which fills 128 SMs."""
_ROWS: Final = 128  # rounds are of whole tiles of queries
_TILE: Final = ("BLOCK_M", "BLOCK_N", "BLOCK_K")
_TOTALS: Final = {"BLOCK_M": 32, "BLOCK_N": 32}
_MAX_STRIDE: Final = 2**31 // 256  # blocks have at most 256 tokens


def plan_attention_wide(
    *,
    batch: int,
    m: int,
    n: int,
    channels: int,
    arch: Architecture,
    dtype: str = "float16",
    q_stride: int | None = None,
    k_stride: int | None = None,
    v_stride: int | None = None,
    scratch: int = SCRATCH,
) -> LaunchPlan:
    """The launch plan of `attention_wide`: q (batch, m, C), k and v (batch, n, C) to (batch, m, C), C = channels.

    `batch`: pictures. `m`: queries of a picture. `n`: keys of a picture. `channels`: of the one head, a multiple of 16.
    `arch`: what it runs on. `dtype`: of everything, float16. `q_stride`: elements from one token of q to the next,
    where q is a slice of columns of a wider tensor: its pointer is that of its first element. `k_stride`: the same for
    k. `v_stride`: the same for v. `scratch`: bytes that shares may take; queries go in as many rounds as that needs,
    of 128 at least, and how many does not change the result.

    Neither m, n, batch nor scratch changes which binaries are launched, but for the table's rows.

    Raises `UnsupportedShapeError`: a constraint does not hold.
    """
    strides = {"q_stride": q_stride or channels, "k_stride": k_stride or channels, "v_stride": v_stride or channels}
    _check(batch, m, n, channels, dtype, arch, strides)
    score = lookup("attention_wide", arch, m)
    mix = lookup("attention_wide_mix", arch, m)
    _check_tiles(score, mix)
    block = score["BLOCK_N"]
    blocks = cdiv(n, block)
    at_most = max(1, scratch // (2 * batch * blocks * block * _ROWS)) * _ROWS
    rows = cdiv(cdiv(m, cdiv(m, at_most)), _ROWS) * _ROWS
    sizes = {"M": m, "N": n}
    width = {"CHANNELS": channels, "SCALE": log2(e) / channels**0.5}
    launches: list[Launch] = []
    for first in range(0, m, rows):
        count = cdiv(min(rows, m - first), _ROWS) * _ROWS  # whole tiles, so that nothing is read that none wrote
        launches += (
            Launch(
                kernel="attention_wide.shares_kernel",
                arguments={
                    "q": "q", "k": "k", "shares": "shares", "peak": "peak", "weight": "weight", **sizes,
                    "first": first, "rows": rows, "q_stride": strides["q_stride"], "k_stride": strides["k_stride"],
                },
                constants={**width, **{name: score[name] for name in (*_TILE, "GROUP_M")}},
                grid=(count // score["BLOCK_M"] * blocks, batch, 1),
                num_warps=score["num_warps"],
                num_stages=score["num_stages"],
                varying=frozenset({"M", "N", "first", "rows"}),
                instruction="f16",
            ),
            Launch(
                kernel="attention_wide.totals_kernel",
                arguments={
                    "peak": "peak", "weight": "weight", "highest": "highest", "total": "total",
                    "blocks": blocks, "rows": rows,
                },
                constants={"SCALE": width["SCALE"], **_TOTALS},
                grid=(count // _TOTALS["BLOCK_M"], batch, 1),
                num_warps=4,
                num_stages=1,
                varying=frozenset({"blocks", "rows"}),
            ),
            Launch(
                kernel="attention_wide.mix_kernel",
                arguments={
                    "shares": "shares", "peak": "peak", "highest": "highest", "total": "total", "v": "v", "out": "out",
                    **sizes, "first": first, "rows": rows, "v_stride": strides["v_stride"],
                },
                constants={**width, "KEY_BLOCK": block, **{name: mix[name] for name in _TILE}},
                grid=(count // mix["BLOCK_M"] * cdiv(channels, mix["BLOCK_N"]), batch, 1),
                num_warps=mix["num_warps"],
                num_stages=mix["num_stages"],
                varying=frozenset({"M", "N", "first", "rows"}),
                instruction="f16",
            ),
        )  # fmt: skip
    keys = Buffer(shape=(batch, n, channels), dtype=dtype)
    queries = Buffer(shape=(batch, m, channels), dtype=dtype)
    by_block = Buffer(shape=(batch, blocks, rows), dtype="float32")
    by_row = Buffer(shape=(batch, rows), dtype="float32")
    return LaunchPlan(
        op="attention_wide",
        inputs={"q": queries, "k": keys, "v": keys},
        outputs={"out": queries},
        scratch={
            "shares": Buffer(shape=(batch, rows, blocks * block), dtype=dtype),
            "peak": by_block, "weight": by_block, "highest": by_row, "total": by_row,
        },
        launches=tuple(launches),
        operations={dtype: 4 * batch * m * n * channels},
    )  # fmt: skip


def _check(
    batch: int, m: int, n: int, channels: int, dtype: str, arch: Architecture, strides: Mapping[str, int]
) -> None:
    op = "attention_wide"
    shape = {"batch": batch, "m": m, "n": n, "channels": channels, "dtype": dtype, "sm": arch.sm, **strides}
    require(batch >= 1 and m >= 1 and n >= 1, op, shape, "there must be at least one of each")
    require(batch <= 65_535, op, shape, "a grid has at most 65535 programs in y")
    require(channels >= 16 and channels % 16 == 0, op, shape, "channels must be a multiple of 16; pad with zeros")
    require(dtype == "float16", op, shape, "q, k, v and the result are float16")
    for name, stride in strides.items():
        require(stride >= channels, op, shape, f"{name} is less than the {channels} channels")
        require(stride % 16 == 0, op, shape, f"{name} must be a multiple of 16, so that every token begins at 16 bytes")
        require(stride < _MAX_STRIDE, op, shape, f"{name} would let offsets within a block of tokens pass 32 bits")


def _check_tiles(score: Mapping[str, int], mix: Mapping[str, int]) -> None:
    """Both tables describe one layout of shares; the tuning command may try what does not fit it."""
    tiles = {"KEY_BLOCK": score["BLOCK_N"], "BLOCK_K": mix["BLOCK_K"]}
    require(score["BLOCK_N"] % mix["BLOCK_K"] == 0, "attention_wide", tiles, "keys with one factor fill whole steps")
    rows = {"shares": score["BLOCK_M"], "mix": mix["BLOCK_M"]}
    fits = _ROWS % score["BLOCK_M"] == 0 and _ROWS % mix["BLOCK_M"] == 0
    require(fits, "attention_wide", rows, f"tiles divide the {_ROWS} queries that rounds are made of")
