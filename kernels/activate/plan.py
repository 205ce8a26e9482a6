"""The launch of an activation, from its shape alone."""

from ..architecture import Architecture
from ..configs import lookup
from ..errors import require
from ..half.plan import ACTIVATIONS
from ..launch import Buffer, Launch, LaunchPlan, cdiv


def plan_activate(*, m: int, n: int, activation: str, arch: Architecture) -> LaunchPlan:
    """The launch plan of `activate`: x (m, n) float16 to the same.

    Raises `UnsupportedShapeError`: a constraint does not hold.
    """
    op = "activate"
    shape = {"m": m, "n": n, "activation": activation}
    known = ", ".join(name for name in ACTIVATIONS if name)
    require(m >= 1 and n >= 1, op, shape, "there must be at least one element")
    require(bool(activation) and activation in ACTIVATIONS, op, shape, f"the activation is one of {known}")
    require(m * n < 2**31 - 2**20, op, shape, "elements are counted in 32 bits")
    config = lookup(op, arch, m, n=n)
    launch = Launch(
        kernel="activate.activate_kernel",
        arguments={"x": "x", "out": "out", "size": m * n},
        constants={"ACTIVATION": ACTIVATIONS[activation], "BLOCK": config["BLOCK"]},
        grid=(cdiv(m * n, config["BLOCK"]), 1, 1),
        num_warps=config["num_warps"],
        num_stages=1,
        varying=frozenset({"size"}),
    )
    values = Buffer(shape=(m, n), dtype="float16")
    return LaunchPlan(op=op, inputs={"x": values}, outputs={"out": values}, launches=(launch,))
