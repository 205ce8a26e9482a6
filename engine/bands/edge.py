"""A banded component's edge: what its one value at either end is to those who call it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import IntegrityError, RequestError
from ..folder.manifest import ComponentEntry, checked_file
from ..specs import ComponentSpec
from .program import BandProgram
from .read import BANDS_FILE, read_bands


def read_program(folder: Path, component: str, entry: ComponentEntry) -> BandProgram:
    """The segments of a component. Raises `IntegrityError` where they do not fit what `engine.json` says."""
    program = read_bands(checked_file(folder, entry, BANDS_FILE))
    (given,), made = entry.spec.inputs, entry.spec.outputs
    edges = (
        (program.values[program.input], given.shape[1]),
        (program.values[program.output], sum(int(tensor.shape[1]) for tensor in made)),
    )
    named = len(made) > 1 or program.output == made[0].name
    if (
        program.input != given.name
        or not named
        or any(value.channels != channels or value.dtype != "float32" for value, channels in edges)
    ):
        raise IntegrityError(
            f"{component}: engine.json and {BANDS_FILE} disagree on the edge; build the engine again with "
            "`pocketxl build`, or copy the folder again"
        )
    return program


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
