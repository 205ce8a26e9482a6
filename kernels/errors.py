"""What the kernels refuse, and why."""

from collections.abc import Mapping


class KernelError(ValueError):
    """A kernel cannot do what was asked; the message names the shape, the reason and what serves instead."""


class UnsupportedShapeError(KernelError):
    """A shape, dtype or layout outside a kernel's declared constraints."""


class UnsupportedArchitectureError(KernelError):
    """A GPU architecture for which no kernel is compiled."""


def require(holds: bool, op: str, shape: Mapping[str, object], reason: str) -> None:
    """Check one declared constraint of an op.

    Raises `UnsupportedShapeError`: it does not hold.
    """
    if not holds:
        given = ", ".join(f"{name}={value}" for name, value in shape.items())
        raise UnsupportedShapeError(f"{op} cannot take {given}: {reason}")
