"""Launches of the 8-bit convolution, from shapes and dtypes alone."""

from collections.abc import Mapping, Sequence
from typing import Final

from ..architecture import Architecture
from ..configs import lookup
from ..configs.tiles import fits_depth
from ..errors import KernelError, require
from ..launch import Buffer, Launch, LaunchPlan, cdiv

# int32 sums of int8 products are exact up to this depth.
MAX_K: Final = (2**31 - 1) // (128 * 128)
FLOATS: Final = ("float16", "bfloat16", "float32")

MAX_SPLITS: Final = 8
# Writing and reading one sum takes about as long as multiplying to this depth: 8 bytes against twice the depth in
# operations. From the stated peaks of a 3090, 4090, 5090, A100 and H100, which lie between 500 and 800; not measured.
SUM_DEPTH: Final = 640
# A thread adds to so many sums at once; more would not fit its registers with what is added to them.
SUMS_AT_ONCE: Final = 64
# Hopper's tiles have two steps less than stages under way before the first is used; a share is at least four steps.
MAX_STAGES: Final = 6


def plan_conv_w8a8(
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
    dtype: str = "int8",
    out_dtype: str = "float16",
    bias: bool = True,
    time: bool = False,
    residual: bool = False,
) -> LaunchPlan:
    """The launch plan of `conv_w8a8`: pictures (b, h, w, c), and (b, h, w, c2) beside them, to (b, ho, wo, n).

    Few rows and a deep sum leave most of a GPU idle; then several programs share the sum of a tile, and a second kernel
    adds the shares up: exactly for int8, in a fixed order for float8.

    Raises `UnsupportedShapeError`: a constraint does not hold.
    """
    seen = seen_size(h, w, upsample_to)
    _check(
        b=b, h=h, w=w, c=c, c2=c2, n=n, kernel=kernel, stride=stride, seen=seen,
        dtype=dtype, out_dtype=out_dtype, arch=arch,
    )  # fmt: skip
    ho, wo = output_size(seen, stride=stride)
    m, depth = b * ho * wo, kernel * kernel * (c + c2)
    config = _config(arch, m, c, c2, n, kernel * kernel, dtype, out_dtype, added=time or residual)
    overlaps, second = bool(config.get("OVERLAP", 0)), config.get("SECOND_N", 0)
    inputs = {
        "x": Buffer(shape=(b, h, w, c), dtype=dtype),
        "x_scale": Buffer(shape=(b,), dtype="float32"),
        "weight": Buffer(shape=(n, kernel, kernel, c + c2), dtype=dtype),
        "weight_scale": Buffer(shape=(n,), dtype="float32"),
    }
    if c2:
        inputs["x2"] = Buffer(shape=(b, h, w, c2), dtype=dtype)
        inputs["x2_scale"] = Buffer(shape=(b,), dtype="float32")
    if bias:
        inputs["bias"] = Buffer(shape=(n,), dtype=out_dtype)
    if time:
        inputs["time"] = Buffer(shape=(b, n), dtype=out_dtype)
    if residual:
        inputs["residual"] = Buffer(shape=(b, ho, wo, n), dtype=out_dtype)
    tiles = cdiv(m, config["BLOCK_M"]) * cdiv(n, config["BLOCK_N"] + second)
    steps = kernel * kernel * cdiv(c, config["BLOCK_K"])
    # Sums of a 1x1 kernel are not deep; two inputs have a scale each, so that their sums cannot be added unscaled.
    programs = arch.programs(config["PROGRAMS"])
    splits = 1 if kernel == 1 or c2 else split_sum(tiles=tiles, steps=steps, depth=depth, programs=programs)
    given = {name: name if name in inputs else None for name in (*_OPERANDS, *_FINISH)}
    multiply = Launch(
        kernel="hopper_conv.conv_w8a8_async_kernel" if overlaps else "conv.conv_w8a8_kernel",
        arguments={
            **(given if splits == 1 else dict.fromkeys(given) | {"x": "x", "weight": "weight"}),
            "out": "out" if splits == 1 else "sums",
            "B": b, "H": h, "W": w, "SEEN_H": seen[0], "SEEN_W": seen[1], "C": c, "C2": c2, "N": n,
        },
        constants={
            "KERNEL": kernel, "STRIDE": stride, "UPSAMPLE": upsample_to is not None, "SHARED": splits > 1,
            **{name: config[name] for name in ("BLOCK_M", "BLOCK_N", "BLOCK_K", "GROUP_M")},
            **(
                {"SECOND_N": second, "STAGES": config["num_stages"]}
                if overlaps
                else {
                    "HALVES": config["BLOCK_M"] * config["BLOCK_N"] > SUMS_AT_ONCE * 32 * config["num_warps"],
                    "EVEN_C": c % config["BLOCK_K"] == 0 and c2 % config["BLOCK_K"] == 0,
                }
            ),
        },
        grid=(tiles, splits, 1),
        num_warps=config["num_warps"],
        num_stages=config["num_stages"],
        varying=frozenset({"B", "H", "W", "SEEN_H", "SEEN_W"}),
        instruction="s8" if dtype == "int8" else "e4m3",
    )  # fmt: skip
    launches = [multiply]
    scratch: dict[str, Buffer] = {}
    if splits > 1:
        scratch["sums"] = Buffer(shape=(splits, m, n), dtype="int32" if dtype == "int8" else "float32")
        launches.append(sum_launch(given, b=b, pixels=ho * wo, n=n, splits=splits))
    return LaunchPlan(
        op="conv_w8a8",
        inputs=inputs,
        outputs={"out": Buffer(shape=(b, ho, wo, n), dtype=out_dtype)},
        launches=tuple(launches),
        scratch=scratch,
        operations={dtype: 2 * m * n * depth},
    )


def seen_size(h: int, w: int, upsample_to: Sequence[int] | None) -> tuple[int, int]:
    """Height and width of the picture as the convolution sees it, enlarged or not."""
    height, width = upsample_to or (h, w)
    return height, width


def output_size(seen: tuple[int, int], *, stride: int) -> tuple[int, int]:
    """Height and width of the output: padding keeps the size, a stride of two halves it upwards."""
    return cdiv(seen[0], stride), cdiv(seen[1], stride)


def split_sum(*, tiles: int, steps: int, depth: int, programs: int) -> int:
    """Into how many shares to split the sums of `tiles` tiles, where a GPU runs `programs` programs at once.

    What is least: rounds of programs, each a share of the depth, plus writing and reading the shares. Splitting has to
    win a seventh, since it also takes memory; a share is four steps at the least, to fill a pipeline.
    """

    def cost(splits: int) -> float:
        shares = splits * tiles / programs * SUM_DEPTH if splits > 1 else 0.0
        return cdiv(tiles * splits, programs) / splits * depth + shares

    best = min(range(1, max(1, min(MAX_SPLITS, steps // 4)) + 1), key=cost)
    return best if cost(best) * 7 <= cost(1) * 6 else 1


def check_geometry(
    op: str,
    shape: Mapping[str, object],
    *,
    b: int,
    h: int,
    w: int,
    c: int,
    c2: int,
    n: int,
    kernel: int,
    stride: int,
    seen: tuple[int, int],
    hint: str,
) -> None:
    """Whether there is such a convolution, whatever its operands; `hint` says what to do with other channels.

    Raises `UnsupportedShapeError`: there is none.
    """
    require(min(b, h, w, n) >= 1, op, shape, "there must be at least one picture, pixel and output channel")
    require(kernel in (1, 3), op, shape, "kernels are 1x1 (padding 0) or 3x3 (padding 1)")
    require(stride in (1, 2), op, shape, "strides are 1 and 2")
    if seen != (h, w):
        grown = all(big in (2 * small, 2 * small - 1) for small, big in zip((h, w), seen, strict=True))
        require(grown, op, shape, "a picture is enlarged to twice its height and width, or one less at an odd level")
        require(kernel == 3 and stride == 1, op, shape, "a picture is enlarged for a 3x3 kernel and stride 1 only")
    channels = f"input channels must be a multiple of 16, so that pixels begin at 16 bytes; {hint}"
    require(c >= 16 and c % 16 == 0 and c2 >= 0 and c2 % 16 == 0, op, shape, channels)
    ho, wo = output_size(seen, stride=stride)
    # Counted in 32 bits with what the last tile has beyond the end; a tap moves by two lines of the picture at most.
    require(b * ho * wo < 2**31 - 1024, op, shape, "output pixels are counted in 32 bits")
    require((2 * w + 3) * max(c, c2) < 2**31, op, shape, "two lines of a picture are addressed in 32 bits")


def sum_launch(given: Mapping[str, str | None], *, b: int, pixels: int, n: int, splits: int) -> Launch:
    """The launch that adds up `sums` (splits, b * pixels, n) and finishes a convolution with what is `given`."""
    m = b * pixels
    block_m, block_n = 8, 128  # nothing to tune: it only reads and writes
    return Launch(
        kernel="conv.conv_sum_kernel",
        arguments={
            "sums": "sums",
            **{name: given.get(name) for name in ("x_scale", "weight_scale", *_FINISH)},
            "out": "out", "B": b, "PIXELS": pixels, "N": n, "splits": splits,
        },
        constants={"BLOCK_M": block_m, "BLOCK_N": block_n},
        grid=(cdiv(m, block_m) * cdiv(n, block_n), 1, 1),
        num_warps=4,
        num_stages=1,
        varying=frozenset({"B", "PIXELS", "splits"}),
    )  # fmt: skip


_OPERANDS: Final = ("x", "x_scale", "x2", "x2_scale", "weight", "weight_scale")
_FINISH: Final = ("bias", "time", "residual")


def _config(
    arch: Architecture, m: int, c: int, c2: int, n: int, taps: int, dtype: str, out_dtype: str, *, added: bool
) -> Mapping[str, int]:
    """The table's row, its step halved where that divides the channels and the whole does not (320 by 128).

    `wide`: Hopper's own tiles have no registers for results of 32 bits, `added`: nor for more than a bias with the sums
    of two pictures. Their steps are whole: a step that divides the
    depth of nine taps divides the channels too, since it is a power of two.
    """
    depths = {"k": taps * c, "k2": taps * c2} if c2 else {"k": taps * c}
    sizes = {"inputs": 2, "n": n, "added": int(added)} if c2 else {"inputs": 1, "c": c, "n": n}
    eight = {**sizes, **depths, "wide": int(out_dtype == "float32"), "fp8": int(dtype != "int8")}
    config = lookup("conv_w8a8", arch, m, **(eight if c2 or dtype == "int8" else {"e4m3": 1}))
    if "OVERLAP" in config:
        fits = all(fits_depth(config, depth) for depth in depths.values())
        if dtype != "int8" or not fits or config["num_stages"] > MAX_STAGES:
            raise KernelError(
                f"a tile with OVERLAP does not fit c = {c}, c2 = {c2}, {dtype}: pictures are int8, steps are whole and "
                f"enough to fill the stages, of which there are {MAX_STAGES} at most"
            )
        return config
    block_k = config["BLOCK_K"]
    half = block_k // 2
    halves = half >= 32 and (c % block_k or c2 % block_k) and not (c % half or c2 % half)
    return {**config, "BLOCK_K": half if halves else block_k}


def _check(
    *,
    b: int,
    h: int,
    w: int,
    c: int,
    c2: int,
    n: int,
    kernel: int,
    stride: int,
    seen: tuple[int, int],
    dtype: str,
    out_dtype: str,
    arch: Architecture,
) -> None:
    op = "conv_w8a8"
    shape = {
        "b": b, "h": h, "w": w, "c": c, "c2": c2, "n": n, "kernel": kernel, "stride": stride, "seen": seen,
        "dtype": dtype, "out_dtype": out_dtype, "sm": arch.sm,
    }  # fmt: skip
    hint = "conv_in stays in float"
    check_geometry(op, shape, b=b, h=h, w=w, c=c, c2=c2, n=n, kernel=kernel, stride=stride, seen=seen, hint=hint)
    deep = f"sums are exact in 32 bits up to kernel * kernel * channels = {MAX_K} only"
    require(kernel * kernel * (c + c2) <= MAX_K, op, shape, deep)
    require(dtype in ("int8", "float8_e4m3fn"), op, shape, "operands are int8 or float8_e4m3fn")
    require(dtype == "int8" or arch.fp8, op, shape, "float8 matrix instructions begin with sm_89; use int8")
    require(out_dtype in FLOATS, op, shape, f"the output is one of {', '.join(FLOATS)}")
