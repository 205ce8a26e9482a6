"""Launches of the weight-only linears and convolutions, from shapes and dtypes alone.

**Format.** Along k (a filter's taps and input channels, contiguous) weights lie in runs of 64: byte j of a run's 32
holds k = j in its low and k = 32 + j in its high nibble, each as q + 8 with q = -8…7. A run is thus two matrix products
on two slices of x, and no nibble ever moves to another thread. Groups of 32, 64 or 128 share a float16 scale.

**Where the scale goes.** On the weight: one packed multiplication for two weights, 32 · BLOCK_N a group of 64. On the
partial sums it would be BLOCK_M · BLOCK_N float32 multiply-adds a group, BLOCK_M / 32 times as many, and a second set
of accumulators. That would be more exact: it saves the rounding of each weight to 16 bits. But those roundings (2^-11
of a weight at most in float16, independent of each other) average out over k to less than the rounding of the output,
and a torch path on dequantized float16 weights has them as well.
"""

from collections.abc import Mapping
from typing import Final

from ..architecture import Architecture
from ..configs import lookup
from ..errors import require
from ..launch import Buffer, Constant, Launch, LaunchPlan, cdiv

RUN: Final = 64
GROUPS: Final = (32, 64, 128)
INSTRUCTIONS: Final = {"float16": "f16", "bfloat16": "bf16"}
_INPUTS: Final = ("x", "weight", "scale", "bias")


def plan_linear_w4(
    *,
    m: int,
    n: int,
    k: int,
    arch: Architecture,
    group: int = 64,
    dtype: str = "float16",
    bias: bool = True,
    residual: bool = False,
) -> LaunchPlan:
    """The launch plan of `linear_w4`: x (m, k) by packed weight (n, k/2) with scale (n, k/group) to (m, n).

    Raises `UnsupportedShapeError`: a constraint does not hold.
    """
    shape = {"m": m, "n": n, "k": k, "group": group, "dtype": dtype, "sm": arch.sm}
    _check("linear_w4", shape, k, dtype)
    _check_group("linear_w4", shape, k, group)
    weights = {
        "weight": Buffer(shape=(n, k // 2), dtype="uint8"),
        "scale": Buffer(shape=(n, k // group), dtype="float16"),
    }
    return _linear("linear_w4", m, n, k, arch, dtype, weights, {"GROUP": group}, bias, residual)


def plan_linear_w8(
    *,
    m: int,
    n: int,
    k: int,
    arch: Architecture,
    dtype: str = "float16",
    bias: bool = True,
    residual: bool = False,
) -> LaunchPlan:
    """The launch plan of `linear_w8`: x (m, k) by weight (n, k) with scale (n,) to (m, n).

    Raises `UnsupportedShapeError`: a constraint does not hold.
    """
    _check("linear_w8", {"m": m, "n": n, "k": k, "dtype": dtype, "sm": arch.sm}, k, dtype)
    weights = {"weight": Buffer(shape=(n, k), dtype="int8"), "scale": Buffer(shape=(n,), dtype="float32")}
    return _linear("linear_w8", m, n, k, arch, dtype, weights, {}, bias, residual)


def plan_conv_w4(
    *,
    b: int,
    h: int,
    w: int,
    c: int,
    n: int,
    arch: Architecture,
    kernel: int = 3,
    stride: int = 1,
    upsample_to: tuple[int, int] | None = None,
    group: int = 64,
    dtype: str = "float16",
    bias: bool = True,
    time: bool = False,
    residual: bool = False,
) -> LaunchPlan:
    """The launch plan of `conv_w4`: pictures (b, h, w, c) to (b, ho, wo, n), see `output_size`.

    Raises `UnsupportedShapeError`: a constraint does not hold.
    """
    shape = {"b": b, "h": h, "w": w, "c": c, "n": n, "group": group, "dtype": dtype, "sm": arch.sm}
    _check("conv_w4", shape, c, dtype)
    _check_group("conv_w4", shape, c, group)
    weights = {
        "weight": Buffer(shape=(n, kernel, kernel, c // 2), dtype="uint8"),
        "scale": Buffer(shape=(n, kernel, kernel, c // group), dtype="float16"),
    }
    image = (b, h, w, c)
    grouped: dict[str, Constant] = {"GROUP": group}
    return _conv("conv_w4", image, n, arch, kernel, stride, upsample_to, dtype, weights, grouped, bias, time, residual)


def plan_conv_w8(
    *,
    b: int,
    h: int,
    w: int,
    c: int,
    n: int,
    arch: Architecture,
    kernel: int = 3,
    stride: int = 1,
    upsample_to: tuple[int, int] | None = None,
    dtype: str = "float16",
    bias: bool = True,
    time: bool = False,
    residual: bool = False,
) -> LaunchPlan:
    """The launch plan of `conv_w8`: as `plan_conv_w4`, with weight (n, kernel, kernel, c) and scale (n,).

    Raises `UnsupportedShapeError`: a constraint does not hold.
    """
    shape = {"b": b, "h": h, "w": w, "c": c, "n": n, "dtype": dtype, "sm": arch.sm}
    _check("conv_w8", shape, c, dtype)
    weights = {
        "weight": Buffer(shape=(n, kernel, kernel, c), dtype="int8"),
        "scale": Buffer(shape=(n,), dtype="float32"),
    }
    image = (b, h, w, c)
    return _conv("conv_w8", image, n, arch, kernel, stride, upsample_to, dtype, weights, {}, bias, time, residual)


def output_size(
    op: str, h: int, w: int, kernel: int, stride: int, upsample_to: tuple[int, int] | None
) -> tuple[int, int]:
    """Height and width of a convolution's output: "same" padding, halved rounding up, or as `upsample_to` says.

    Raises `UnsupportedShapeError`: no such convolution is built.
    """
    shape = {"size": (h, w), "kernel": kernel, "stride": stride, "upsample_to": upsample_to}
    require(kernel in (1, 3), op, shape, "filters are 1×1, or 3×3 with padding 1")
    require(stride == 1 or (stride == 2 and kernel == 3), op, shape, "the stride is 1, or 2 for a 3×3 filter")
    if upsample_to is None:
        return cdiv(h, stride), cdiv(w, stride)
    require(kernel == 3 and stride == 1, op, shape, "only a 3×3 filter of stride 1 reads an upsampled picture")
    fits = all(grown in (2 * size, 2 * size - 1) for size, grown in zip((h, w), upsample_to, strict=True))
    require(fits, op, shape, "upsampling is to twice the size, or to one less")
    return upsample_to


def _linear(
    op: str,
    m: int,
    n: int,
    k: int,
    arch: Architecture,
    dtype: str,
    weights: dict[str, Buffer],
    constants: Mapping[str, Constant],
    bias: bool,
    residual: bool,
) -> LaunchPlan:
    require(m >= 1 and n >= 1, op, {"m": m, "n": n}, "there must be at least one row and one column")
    config = lookup(op, arch, m, k=k, n=n)
    inputs = {"x": Buffer(shape=(m, k), dtype=dtype), **weights}
    if bias:
        inputs["bias"] = Buffer(shape=(n,), dtype=dtype)
    if residual:
        inputs["residual"] = Buffer(shape=(m, n), dtype=dtype)
    launch = Launch(
        kernel=f"weight_only.{op}_kernel",
        arguments={
            **{name: name if name in inputs else None for name in (*_INPUTS, "residual")},
            "out": "out", "M": m, "N": n, "K": k,
        },
        constants=_tile(config, arch, constants),
        grid=(cdiv(m, config["BLOCK_M"]) * cdiv(n, config["BLOCK_N"]), 1, 1),
        num_warps=config["num_warps"],
        num_stages=config["num_stages"],
        varying=frozenset({"M"}),
        instruction=INSTRUCTIONS[dtype],
    )  # fmt: skip
    return LaunchPlan(
        op=op,
        inputs=inputs,
        outputs={"out": Buffer(shape=(m, n), dtype=dtype)},
        launches=(launch,),
        operations={dtype: 2 * m * n * k},
    )


def _conv(
    op: str,
    image: tuple[int, int, int, int],
    n: int,
    arch: Architecture,
    kernel: int,
    stride: int,
    upsample_to: tuple[int, int] | None,
    dtype: str,
    weights: dict[str, Buffer],
    constants: Mapping[str, Constant],
    bias: bool,
    time: bool,
    residual: bool,
) -> LaunchPlan:
    b, h, w, c = image
    ho, wo = output_size(op, h, w, kernel, stride, upsample_to)
    m, k = b * ho * wo, kernel * kernel * c
    shape = {"b": b, "h": h, "w": w, "c": c, "n": n}
    require(m >= 1 and n >= 1, op, shape, "there must be at least one pixel and one channel")
    require(h * w * c < 2**31, op, shape, "places within one image are counted in 32 bits")
    require(m < 2**31, op, shape, "pixels are counted in 32 bits")
    config = lookup(op, arch, m, k=k, n=n)
    inputs = {"x": Buffer(shape=image, dtype=dtype), **weights}
    if bias:
        inputs["bias"] = Buffer(shape=(n,), dtype=dtype)
    if time:
        inputs["time"] = Buffer(shape=(b, n), dtype=dtype)
    if residual:
        inputs["residual"] = Buffer(shape=(b, ho, wo, n), dtype=dtype)
    launch = Launch(
        kernel=f"weight_only.{op}_kernel",
        arguments={
            **{name: name if name in inputs else None for name in (*_INPUTS, "time", "residual")},
            "out": "out", "M": m, "N": n, "C": c, "H": h, "W": w, "OH": ho, "OW": wo,
        },
        constants={
            **_tile(config, arch, constants),
            "TAPS": kernel * kernel, "STRIDE": stride, "UPSAMPLE": upsample_to is not None,
        },
        grid=(cdiv(m, config["BLOCK_M"]) * cdiv(n, config["BLOCK_N"]), 1, 1),
        num_warps=config["num_warps"],
        num_stages=config["num_stages"],
        varying=frozenset({"M", "H", "W", "OH", "OW"}),
        instruction=INSTRUCTIONS[dtype],
    )  # fmt: skip
    return LaunchPlan(
        op=op,
        inputs=inputs,
        outputs={"out": Buffer(shape=(b, ho, wo, n), dtype=dtype)},
        launches=(launch,),
        operations={dtype: 2 * m * n * k},
    )


def _tile(config: Mapping[str, int], arch: Architecture, constants: Mapping[str, Constant]) -> dict[str, Constant]:
    tile: dict[str, Constant] = {name: config[name] for name in ("BLOCK_M", "BLOCK_N", "GROUP_M")}
    if "GROUP" in constants:
        # Fetching scales a step ahead hides how long that takes. But where a warp holds fewer than 32 channels, and
        # where `wgmma` is used, Triton then unpacks weights in another layout than the products want and sends them
        # through shared memory (seen in the SASS): there scales are read when needed, mostly from the L1 cache.
        tile["AHEAD"] = not arch.wgmma and config["BLOCK_N"] >= 32 * config["num_warps"]
    return {**tile, **constants}


def _check(op: str, shape: Mapping[str, object], k: int, dtype: str) -> None:
    require(dtype in INSTRUCTIONS, op, shape, f"x is one of {', '.join(INSTRUCTIONS)}")
    reason = f"weights lie in runs of {RUN} along the input channels; conv_in with its 4, and conv_out, stay float"
    require(k >= RUN and k % RUN == 0, op, shape, reason)


def _check_group(op: str, shape: Mapping[str, object], k: int, group: int) -> None:
    require(group in GROUPS, op, shape, f"a group is one of {', '.join(map(str, GROUPS))}")
    require(k % group == 0, op, shape, "groups do not cross taps: input channels must be a multiple of the group")
