"""Launches of the normalizations, from shapes and dtypes alone."""

from typing import Final

from ..architecture import Architecture
from ..configs import lookup
from ..errors import require
from ..launch import Buffer, Launch, LaunchPlan, cdiv
from ..quantize.plan import FLOATS, check_dtypes, check_rows
from ..quantize.rows import row_tile

MAX_WIDTH: Final = 64  # channels of a program of GroupNorm: 128 bytes of a 16-bit float
MERGED: Final = 2048  # (chunks × channels) that a program merges at a time


def plan_layer_norm(
    *,
    m: int,
    c: int,
    arch: Architecture,
    eps: float = 1e-5,
    x_dtype: str = "float16",
    parameter_dtype: str = "float16",
) -> LaunchPlan:
    """The launch plan of `layer_norm`: x (m, c), to the same dtype.

    Raises `UnsupportedShapeError`: a constraint does not hold.
    """
    check_rows("layer_norm", {"m": m, "c": c}, arch, "int8", x_dtype)
    _check_parameters("layer_norm", eps, parameter_dtype)
    tile = row_tile(c, lookup("layer_norm", arch, m, c=c))
    launch = Launch(
        kernel="norm.layer_norm_kernel",
        arguments={"x": "x", "weight": "weight", "bias": "bias", "out": "out", "M": m, "eps": float(eps)},
        constants={"C": c, **tile.constants},
        grid=(cdiv(m, tile.rows), 1, 1),
        num_warps=tile.num_warps,
        num_stages=1,
        varying=frozenset({"M"}),
    )
    parameter = Buffer(shape=(c,), dtype=parameter_dtype)
    return LaunchPlan(
        op="layer_norm",
        inputs={"x": Buffer(shape=(m, c), dtype=x_dtype), "weight": parameter, "bias": parameter},
        outputs={"out": Buffer(shape=(m, c), dtype=x_dtype)},
        launches=(launch,),
    )


def plan_layer_norm_quantize(
    *,
    m: int,
    c: int,
    arch: Architecture,
    eps: float = 1e-5,
    dtype: str = "int8",
    x_dtype: str = "float16",
    parameter_dtype: str = "float16",
) -> LaunchPlan:
    """The launch plan of `layer_norm_quantize`: x (m, c).

    Raises `UnsupportedShapeError`: a constraint does not hold.
    """
    return _layer_norm("layer_norm_quantize", m, c, arch, eps, dtype, x_dtype, parameter_dtype)


def plan_add_layer_norm_quantize(
    *,
    m: int,
    c: int,
    arch: Architecture,
    eps: float = 1e-5,
    dtype: str = "int8",
    x_dtype: str = "float16",
    parameter_dtype: str = "float16",
) -> LaunchPlan:
    """The launch plan of `add_layer_norm_quantize`: x and residual (m, c).

    Raises `UnsupportedShapeError`: a constraint does not hold.
    """
    return _layer_norm("add_layer_norm_quantize", m, c, arch, eps, dtype, x_dtype, parameter_dtype)


def plan_group_norm_silu(
    *,
    b: int,
    h: int,
    w: int,
    c: int,
    arch: Architecture,
    c2: int = 0,
    groups: int = 32,
    eps: float = 1e-5,
    silu: bool = True,
    x_dtype: str = "float16",
    parameter_dtype: str = "float16",
) -> LaunchPlan:
    """The launch plan of `group_norm_silu`: x (b, h, w, c), and x2 (b, h, w, c2) beside it, to (b, h, w, c + c2).

    A picture's result does not depend on the others.

    Raises `UnsupportedShapeError`: a constraint does not hold.
    """
    return _group_norm("group_norm_silu", b, h, w, c, c2, arch, groups, eps, silu, None, x_dtype, parameter_dtype)


def plan_group_norm_silu_quantize(
    *,
    b: int,
    h: int,
    w: int,
    c: int,
    arch: Architecture,
    c2: int = 0,
    groups: int = 32,
    eps: float = 1e-5,
    silu: bool = True,
    dtype: str = "int8",
    x_dtype: str = "float16",
    parameter_dtype: str = "float16",
) -> LaunchPlan:
    """The launch plan of `group_norm_silu_quantize`: x (b, h, w, c), x2 (b, h, w, c2), to (b, h, w, c + c2).

    A picture's result does not depend on the others.

    Raises `UnsupportedShapeError`: a constraint does not hold.
    """
    op = "group_norm_silu_quantize"
    check_dtypes(op, arch, dtype, x_dtype)
    return _group_norm(op, b, h, w, c, c2, arch, groups, eps, silu, dtype, x_dtype, parameter_dtype)


def _layer_norm(
    op: str, m: int, c: int, arch: Architecture, eps: float, dtype: str, x_dtype: str, parameter_dtype: str
) -> LaunchPlan:
    check_rows(op, {"m": m, "c": c}, arch, dtype, x_dtype)
    _check_parameters(op, eps, parameter_dtype)
    tile = row_tile(c, lookup(op, arch, m, c=c))
    inputs = {"x": Buffer(shape=(m, c), dtype=x_dtype)}
    outputs = {"q": Buffer(shape=(m, c), dtype=dtype), "scale": Buffer(shape=(m,), dtype="float32")}
    if op == "add_layer_norm_quantize":
        inputs["residual"] = Buffer(shape=(m, c), dtype=x_dtype)
        outputs["total"] = Buffer(shape=(m, c), dtype=x_dtype)
    inputs |= {name: Buffer(shape=(c,), dtype=parameter_dtype) for name in ("weight", "bias")}
    there = {**inputs, **outputs}
    pointers = ("x", "residual", "weight", "bias", "total", "q", "scale")
    launch = Launch(
        kernel="norm.layer_norm_quantize_kernel",
        arguments={**{name: name if name in there else None for name in pointers}, "M": m, "eps": float(eps)},
        constants={"C": c, **tile.constants},
        grid=(cdiv(m, tile.rows), 1, 1),
        num_warps=tile.num_warps,
        num_stages=1,
        varying=frozenset({"M"}),
    )
    return LaunchPlan(op=op, inputs=inputs, outputs=outputs, launches=(launch,))


def _group_norm(
    op: str,
    b: int,
    h: int,
    w: int,
    c1: int,
    c2: int,
    arch: Architecture,
    groups: int,
    eps: float,
    silu: bool,
    dtype: str | None,
    x_dtype: str,
    parameter_dtype: str,
) -> LaunchPlan:
    c = c1 + c2
    shape = {"b": b, "h": h, "w": w, "c": c1, "groups": groups, "c2": c2}
    pixels = h * w
    require(min(b, h, w, c1, groups) >= 1, op, shape, "there must be at least one element and one group")
    require(c % groups == 0, op, shape, "groups must divide c + c2")
    require(c1 % 16 == 0, op, shape, "c must be a multiple of 16, so that pixels begin at 16 bytes")
    require(c2 % 16 == 0 and c2 >= 0, op, shape, "c2 must be a multiple of 16, so that pixels begin at 16 bytes")
    require(c // groups <= MERGED, op, shape, f"a group has at most {MERGED} channels")
    require(b < 2**16, op, shape, "a grid has at most 65535 pictures")
    require(pixels * c < 2**31 - 2**20, op, shape, "places in a picture are counted in 32 bits")
    require(x_dtype in FLOATS, op, {"x_dtype": x_dtype}, f"the input is one of {', '.join(FLOATS)}")
    _check_parameters(op, eps, parameter_dtype)

    config = lookup(op, arch, pixels, c=c)
    width = min(MAX_WIDTH, (c1 | c2) & -(c1 | c2))  # a block of channels lies in x or in x2
    height = 256 * config["num_warps"] // width  # eight elements a thread: 16 bytes of a 16-bit float
    chunk = config["STEPS"] * height
    chunks = cdiv(pixels, chunk)
    least = height * min(config["STEPS"], config["APPLY_STEPS"])
    require(cdiv(pixels, least) < 2**16, op, shape, f"a grid has at most 65535 chunks of {least} pixels")
    group = c // groups
    lanes = 1 << (group - 1).bit_length()

    def of_chunks(kind: str) -> Buffer:
        return Buffer(shape=(b, chunks, c), dtype=kind)

    inputs = {
        "x": Buffer(shape=(b, h, w, c1), dtype=x_dtype),
        "weight": Buffer(shape=(c,), dtype=parameter_dtype),
        "bias": Buffer(shape=(c,), dtype=parameter_dtype),
    }
    if c2:
        inputs["x2"] = Buffer(shape=(b, h, w, c2), dtype=x_dtype)
    outputs = {"out": Buffer(shape=(b, h, w, c), dtype=dtype or x_dtype)}
    scratch = {
        "mean": of_chunks("float32"),
        "squares": of_chunks("float32"),
        "factor": Buffer(shape=(b, c), dtype="float32"),
        "offset": Buffer(shape=(b, c), dtype="float32"),
    }
    if dtype:
        outputs["scale"] = Buffer(shape=(b,), dtype="float32")
        # The extremes are elements of x, so its dtype holds them exactly.
        scratch |= {"low": of_chunks(x_dtype), "high": of_chunks(x_dtype)}
        scratch["peak"] = Buffer(shape=(b, groups), dtype="float32")
    optional = {name: name if dtype else None for name in ("low", "high", "peak", "scale")}
    sources = {"x": "x", "x2": "x2" if c2 else None}
    seam = c1 if c2 else None
    tile = {"HEIGHT": height, "WIDTH": width}
    launches = (
        Launch(
            kernel="norm.group_norm_statistics_kernel",
            arguments={
                **sources, "mean": "mean", "squares": "squares", "low": optional["low"], "high": optional["high"],
                "pixels": pixels, "C": c, "C1": seam,
            },
            constants={"STEPS": config["STEPS"], **tile},
            grid=(c // width, chunks, b),
            num_warps=config["num_warps"],
            num_stages=1,
            varying=frozenset({"pixels"}),
        ),
        Launch(
            kernel="norm.group_norm_merge_kernel",
            arguments={
                "mean": "mean", "squares": "squares", "low": optional["low"], "high": optional["high"],
                "weight": "weight", "bias": "bias", "factor": "factor", "offset": "offset", "peak": optional["peak"],
                "pixels": pixels, "chunks": chunks, "chunk": chunk, "C": c, "group": group, "eps": float(eps),
            },
            constants={"LANES": lanes, "CHUNKS": max(1, MERGED // lanes), "SILU": silu},
            grid=(groups, b, 1),
            num_warps=8,
            num_stages=1,
            varying=frozenset({"pixels", "chunks", "chunk", "group"}),
        ),
        Launch(
            kernel="norm.group_norm_apply_kernel",
            arguments={
                **sources, "factor": "factor", "offset": "offset", "peak": optional["peak"], "out": "out",
                "scale": optional["scale"], "pixels": pixels, "C": c, "C1": seam, "groups": groups,
            },
            constants={
                "PEAKS": 1 << (groups - 1).bit_length(), "STEPS": config["APPLY_STEPS"], **tile, "SILU": silu,
            },
            grid=(c // width, cdiv(pixels, config["APPLY_STEPS"] * height), b),
            num_warps=config["num_warps"],
            num_stages=1,
            varying=frozenset({"pixels"}),
        ),
    )  # fmt: skip
    return LaunchPlan(op=op, inputs=inputs, outputs=outputs, scratch=scratch, launches=launches)


def _check_parameters(op: str, eps: float, parameter_dtype: str) -> None:
    shape = {"eps": eps, "parameter_dtype": parameter_dtype}
    require(eps > 0, op, shape, "eps must be positive, or constant input divides by zero")
    require(parameter_dtype in FLOATS, op, shape, f"weight and bias are one of {', '.join(FLOATS)}")
