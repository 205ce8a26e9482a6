"""The truth for activations, in float64."""

from torch import Tensor

from ..half.reference import activation_ref


def activate_ref(x: Tensor, activation: str) -> Tensor:
    """What `activate` approximates, float64."""
    return activation_ref(x.double(), activation)
