"""Gaussian noise out of a caller's own torch generators, drawn as diffusers draws it (`randn_tensor`)."""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from .samplers.base import Array


class TorchNoise:
    """Draws for several pictures: from one generator for all of them at once, or from each picture's own.

    The generators' state moves. torch is not imported: whoever has a generator has it.
    """

    def __init__(self, generators: Sequence[Any], pictures: int) -> None:
        self._generators = generators
        self._pictures = pictures

    def normal(self, shape: tuple[int, ...]) -> Array:
        """(pictures, *shape) float32 values of N(0, 1)."""
        if len(self._generators) == 1:
            return _draw(self._generators[0], (self._pictures, *shape))
        return np.concatenate([_draw(generator, (1, *shape)) for generator in self._generators])


def _draw(generator: Any, shape: tuple[int, ...]) -> Array:
    torch: Any = sys.modules["torch"]
    drawn = torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float32)
    return np.asarray(drawn.cpu().numpy(), dtype=np.float32)
