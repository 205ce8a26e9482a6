"""What a kernel rounds to int8 at its end, against the truth: the same whole steps, but where one lies between two."""

from torch import Tensor

MOVED = 0.02
"""Of the numbers: sums in float32 that end on the other side of a half. Measured: at most 0.9 %."""


def assert_steps(value: Tensor, truth: Tensor, moved: float = MOVED) -> None:
    """`truth`: whole steps, float64, of every size up to the ends."""
    apart = (value.double() - truth).abs()
    assert apart.max() <= 1
    assert (apart > 0).double().mean() <= moved
    assert (truth.abs() == 127).any(), "the ends are reached"
    assert (truth.abs() < 100).any()
