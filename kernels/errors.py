"""What the kernels refuse, and why."""

from collections.abc import Mapping
from typing import ClassVar


class KernelError(ValueError):
    """A kernel cannot do what was asked; the message names the shape, the reason and what serves instead.

    `exit_code` is the command line's exit status, with the meaning that the engine's errors give it. It stands here
    because this floor knows nothing of the engine.
    """

    exit_code: ClassVar[int] = 2


class UnsupportedShapeError(KernelError):
    """A shape, dtype or layout outside a kernel's declared constraints."""

    exit_code = 3


class UnsupportedArchitectureError(KernelError):
    """A GPU architecture for which no kernel is compiled."""

    exit_code = 3


def require(holds: bool, op: str, shape: Mapping[str, object], reason: str) -> None:
    """Check one declared constraint of an op.

    Raises `UnsupportedShapeError`: it does not hold.
    """
    if not holds:
        given = ", ".join(f"{name}={value}" for name, value in shape.items())
        raise UnsupportedShapeError(f"{op} cannot take {given}: {reason}")
