"""What the host makes of the few numbers that a conditioner on the GPU takes: a row for each evaluation of the U-Net.

Timesteps, sizes and the scale of guidance become sines and cosines, in float32 as the network has them; what is the
same for all steps, or for all pictures, is repeated.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ..program.program import Along, Edge, Waves
from ..program.sizes import Sizes
from .base import Values

Floats = npt.NDArray[np.float32]


def with_rows(edges: Mapping[str, Edge], inputs: Values, sizes: Sizes) -> Values:
    """The inputs, in place of vectors their rows; `edges` by tensor."""
    vectors = [name for name in inputs if edges[name].vectors is not None]
    return {**inputs, **{name: rows_of(edges[name], np.asarray(inputs[name]), sizes) for name in vectors}}


def rows_of(edge: Edge, given: np.ndarray, sizes: Sizes) -> Floats:
    """An input as columns of a row for each step's every picture, steps first: float32 `[evaluations, width]`."""
    vectors = edge.vectors
    assert vectors is not None, edge
    made = np.asarray(given, np.float32)
    made = made.reshape(len(made), -1) if vectors.waves is None else waves_of(made, vectors.waves)
    if edge.values[0].shape[0] == "steps":
        return made
    if vectors.along is Along.STEPS:
        return made.repeat(sizes.batch, axis=0)
    return np.tile(made, (sizes.steps, 1))


def waves_of(numbers: Floats, waves: Waves) -> Floats:
    """Of each number all waves, one kind behind the other: `[rows, …]` → `[rows, numbers of a row · waves]`."""
    scaled = numbers * np.float32(waves.factor)
    angles = scaled[..., None] * np.asarray(waves.frequencies, np.float32)
    both = (np.sin(angles), np.cos(angles)) if waves.sines_first else (np.cos(angles), np.sin(angles))
    return np.concatenate(both, axis=-1).reshape(len(numbers), -1)
