"""A banded component's edge: what its one value at either end is to those who call it."""

from collections.abc import Sequence

import numpy as np

from ..errors import RequestError
from ..specs import ComponentSpec
from .program import BandProgram


def latent_columns(component: str, program: BandProgram, shape: Sequence[int]) -> int:
    """Columns of latents for an input `[…, h, w]`. Raises `RequestError` for sides that are no whole latents."""
    scale, sides = program.values[program.input].scale, tuple(shape[-2:])
    if min(sides) < scale or any(side % scale for side in sides):
        raise RequestError(
            f"{component}: input {program.input} is {sides[0]} high and {sides[1]} wide; give it multiples of {scale}"
        )
    return sides[1] // scale


def parted(whole: np.ndarray, spec: ComponentSpec) -> dict[str, np.ndarray]:
    """`[rows, channels, h, w]` → the outputs, which have those channels one after another, in their declared types."""
    ends = np.cumsum([int(tensor.shape[1]) for tensor in spec.outputs])
    parts = zip(spec.outputs, np.split(whole, ends[:-1], axis=1), strict=True)
    return {tensor.name: part.astype(tensor.dtype, copy=False) for tensor, part in parts}
