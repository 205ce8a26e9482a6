"""Launches of the quantizations, from shapes and dtypes alone."""

from collections.abc import Mapping
from typing import Final

from ..architecture import Architecture
from ..configs import lookup
from ..errors import require
from ..launch import Buffer, Launch, LaunchPlan, cdiv
from .rows import MAX_C, row_tile

FLOATS: Final = ("float16", "bfloat16", "float32")
QUANTIZED: Final = ("int8", "float8_e4m3fn")
PEAKS: Final = 1024  # magnitudes of a picture that a program reads at a time


def plan_quantize_per_token(
    *, m: int, c: int, arch: Architecture, dtype: str = "int8", x_dtype: str = "float16"
) -> LaunchPlan:
    """The launch plan of `quantize_per_token`: x (m, c).

    Raises `UnsupportedShapeError`: a constraint does not hold.
    """
    check_rows("quantize_per_token", {"m": m, "c": c}, arch, dtype, x_dtype)
    return _row_plan("quantize_per_token", m, c, c, arch, dtype, x_dtype)


def plan_geglu_quantize(
    *, m: int, n: int, arch: Architecture, dtype: str = "int8", x_dtype: str = "float16"
) -> LaunchPlan:
    """The launch plan of `geglu_quantize`: x (m, 2n), values then gates, to (m, n).

    Raises `UnsupportedShapeError`: a constraint does not hold.
    """
    check_rows("geglu_quantize", {"m": m, "n": n}, arch, dtype, x_dtype)
    return _row_plan("geglu_quantize", m, n, 2 * n, arch, dtype, x_dtype)


def plan_geglu(*, m: int, n: int, arch: Architecture, x_dtype: str = "float16", quantized: bool = False) -> LaunchPlan:
    """The launch plan of `geglu`: x (m, 2n), values then gates, to (m, n) in the same dtype.

    `quantized`: the result, times `inverse` (n,) of each column, in int8.

    Raises `UnsupportedShapeError`: a constraint does not hold.
    """
    check_rows("geglu", {"m": m, "n": n}, arch, "int8", x_dtype)
    tile = row_tile(n, lookup("geglu", arch, m, c=n))
    launch = Launch(
        kernel="quantize.geglu_kernel",
        arguments={"x": "x", "inverse": "inverse" if quantized else None, "out": "out", "M": m},
        constants={"C": n, **tile.constants},
        grid=(cdiv(m, tile.rows), 1, 1),
        num_warps=tile.num_warps,
        num_stages=1,
        varying=frozenset({"M"}),
    )
    return LaunchPlan(
        op="geglu",
        inputs={
            "x": Buffer(shape=(m, 2 * n), dtype=x_dtype),
            **({"inverse": Buffer(shape=(n,), dtype="float32")} if quantized else {}),
        },
        outputs={"out": Buffer(shape=(m, n), dtype="int8" if quantized else x_dtype)},
        launches=(launch,),
    )


def plan_quantize_per_image(
    *, b: int, h: int, w: int, c: int, arch: Architecture, dtype: str = "int8", x_dtype: str = "float16"
) -> LaunchPlan:
    """The launch plan of `quantize_per_image`: x (b, h, w, c). A picture's result does not depend on the others.

    Raises `UnsupportedShapeError`: a constraint does not hold.
    """
    op = "quantize_per_image"
    shape = {"b": b, "h": h, "w": w, "c": c}
    pixels = h * w
    require(min(shape.values()) >= 1, op, shape, "there must be at least one element")
    require(c % 16 == 0, op, shape, "c must be a multiple of 16, so that pixels begin at 16 bytes")
    require(b < 2**16, op, shape, "a grid has at most 65535 pictures")
    require(pixels * c < 2**31 - 2**20, op, shape, "places in a picture are counted in 32 bits")
    check_dtypes(op, arch, dtype, x_dtype)
    config = lookup(op, arch, pixels * c, c=c)
    block = 256 * config["num_warps"]  # eight elements a thread: 16 bytes of a 16-bit float
    chunks = cdiv(pixels * c, block * config["STEPS"])
    constants = {"STEPS": config["STEPS"], "BLOCK": block}
    options = {"grid": (chunks, b, 1), "num_warps": config["num_warps"], "num_stages": 1}
    return LaunchPlan(
        op=op,
        inputs={"x": Buffer(shape=(b, h, w, c), dtype=x_dtype)},
        outputs={
            "q": Buffer(shape=(b, h, w, c), dtype=dtype),
            "scale": Buffer(shape=(b,), dtype="float32"),
        },
        scratch={"peak": Buffer(shape=(b, chunks), dtype="float32")},
        launches=(
            Launch(
                kernel="quantize.image_amax_kernel",
                arguments={"x": "x", "peak": "peak", "pixels": pixels, "C": c},
                constants=constants,
                varying=frozenset({"pixels"}),
                **options,  # type: ignore[arg-type]
            ),
            Launch(
                kernel="quantize.quantize_per_image_kernel",
                arguments={"x": "x", "peak": "peak", "q": "q", "scale": "scale", "pixels": pixels, "C": c},
                constants={**constants, "PEAKS": PEAKS},
                varying=frozenset({"pixels"}),
                **options,  # type: ignore[arg-type]
            ),
        ),
    )


def check_rows(op: str, shape: Mapping[str, int], arch: Architecture, dtype: str, x_dtype: str) -> None:
    """What every kernel that quantizes rows asks for; `shape` names the rows, then the channels.

    Raises `UnsupportedShapeError`: a constraint does not hold.
    """
    (_, rows), (name, channels) = shape.items()
    require(rows >= 1, op, shape, "there must be at least one row")
    aligned = channels >= 16 and channels % 16 == 0
    require(aligned, op, shape, f"{name} must be a multiple of 16, so that rows begin at 16 bytes")
    require(channels <= MAX_C, op, shape, f"a row must fit the registers of one program, which hold {MAX_C} channels")
    check_dtypes(op, arch, dtype, x_dtype)


def check_dtypes(op: str, arch: Architecture, dtype: str, x_dtype: str) -> None:
    """Whether a quantization is between dtypes that the kernels and the GPU have.

    Raises `UnsupportedShapeError`: it is not.
    """
    shape = {"dtype": dtype, "x_dtype": x_dtype, "sm": arch.sm}
    require(dtype in QUANTIZED, op, shape, f"the output is one of {', '.join(QUANTIZED)}")
    require(dtype == "int8" or arch.fp8, op, shape, "float8 begins with sm_89; use int8")
    require(x_dtype in FLOATS, op, shape, f"the input is one of {', '.join(FLOATS)}")


def _row_plan(op: str, m: int, c: int, width: int, arch: Architecture, dtype: str, x_dtype: str) -> LaunchPlan:
    tile = row_tile(c, lookup(op, arch, m, c=c))
    return LaunchPlan(
        op=op,
        inputs={"x": Buffer(shape=(m, width), dtype=x_dtype)},
        outputs={"q": Buffer(shape=(m, c), dtype=dtype), "scale": Buffer(shape=(m,), dtype="float32")},
        launches=(
            Launch(
                kernel=f"quantize.{op}_kernel",
                arguments={"x": "x", "q": "q", "scale": "scale", "M": m},
                constants={"C": c, **tile.constants},
                grid=(cdiv(m, tile.rows), 1, 1),
                num_warps=tile.num_warps,
                num_stages=1,
                varying=frozenset({"M"}),
            ),
        ),
    )
