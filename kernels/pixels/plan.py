"""The launch that writes a picture's pixels, from its shape alone."""

from typing import Final

from ..architecture import Architecture
from ..configs import lookup
from ..errors import require
from ..launch import Buffer, Launch, LaunchPlan, cdiv

MAX_PADDED: Final = 256
"""The channels of a pixel are in one program."""


def plan_read_pixels(*, b: int, h: int, w: int, c: int, padded: int, arch: Architecture) -> LaunchPlan:
    """The launch plan of `read_pixels`: x (b, c, h, w) float32 to (b, h, w, padded) float16.

    Raises `UnsupportedShapeError`: a constraint does not hold.
    """
    op, pixels = "read_pixels", h * w
    shape = {"b": b, "h": h, "w": w, "c": c, "padded": padded}
    require(min(shape.values()) >= 1, op, shape, "there must be at least one element")
    require(padded % 16 == 0, op, shape, "padded must be a multiple of 16, so that pixels begin at 16 bytes")
    require(c <= padded <= MAX_PADDED, op, shape, f"padded must hold c channels and be at most {MAX_PADDED}")
    require(b < 2**16, op, shape, "a grid has at most 65535 pictures")
    require(pixels < 2**31 - 2**20, op, shape, "places in a picture are counted in 32 bits")
    config = lookup(op, arch, pixels, padded=padded)
    width = 1 << (padded - 1).bit_length()
    block = max(1, config["TILE"] // width)
    launch = Launch(
        kernel="pixels.read_pixels_kernel",
        arguments={"x": "x", "out": "out", "pixels": pixels},
        constants={"C": c, "PADDED": padded, "WIDTH": width, "BLOCK": block},
        grid=(cdiv(pixels, block), b, 1),
        num_warps=config["num_warps"],
        num_stages=1,
        varying=frozenset({"pixels"}),
    )
    return LaunchPlan(
        op=op,
        inputs={"x": Buffer(shape=(b, c, h, w), dtype="float32")},
        outputs={"out": Buffer(shape=(b, h, w, padded), dtype="float16")},
        launches=(launch,),
    )
