"""A component's inputs as its program has them on the GPU, and its outputs as the host has them.

Each number is converted and moved once: out of the caller's array straight into memory that the GPU copies from, and
back likewise. Inputs keep their order: what has to be moved about, the GPU moves.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import IncompatibleError
from ..program.calls import shape_of
from ..program.program import Edge, Layout, Program, Vectors
from ..program.sizes import Sizes
from ..specs import ComponentSpec, TensorSpec


@dataclass(frozen=True, kw_only=True)
class Part:
    """What of an input becomes one value: some `columns` of the caller's array, in the value's from `first` on."""

    value: str
    shape: tuple[int, ...]
    dtype: np.dtype
    columns: slice
    first: int = 0

    def write(self, here: np.ndarray, array: np.ndarray) -> None:
        """The caller's `array` into one of this shape and dtype."""
        taken = array[..., self.columns]
        np.copyto(here[..., self.first : self.first + taken.shape[-1]], taken, casting="same_kind")


def check_edges(program: Program, spec: ComponentSpec, where: str) -> None:
    """Raise `IncompatibleError` unless a program takes and gives what its component does."""
    for side in ("inputs", "outputs"):
        wanted = {tensor.name for tensor in getattr(spec, side)}
        found = {edge.tensor for edge in getattr(program, side)}
        if wanted != found:
            raise IncompatibleError(
                f"{where} has the {side} {sorted(found)}, its component has {sorted(wanted)}; build the engine again"
            )


def parts(edge: Edge, given: tuple[int, ...], sizes: Sizes) -> Iterator[Part]:
    """An input of the caller's shape `given` as its values; all columns are some value's.

    Raises `IncompatibleError` where the program means another shape.
    """
    if edge.vectors is not None:
        yield _columns(edge, edge.vectors, given, sizes)
        return
    start = 0
    for value in edge.values:
        shape = shape_of(value, sizes)
        end = start + shape[-1]
        if shape[:-1] != given[:-1] or end > given[-1]:
            raise _other_shape(edge, given, shape)
        yield Part(value=value.name, shape=shape, dtype=np.dtype(value.dtype), columns=slice(start, end))
        start = end
    if start != given[-1]:
        raise _other_shape(edge, given, (*given[:-1], start))


def _columns(edge: Edge, vectors: Vectors, given: tuple[int, ...], sizes: Sizes) -> Part:
    """Where the rows of an input of vectors go, which are of the shape `given`."""
    (value,) = edge.values
    shape = shape_of(value, sizes)
    wanted = (*shape[:-1], vectors.width)
    if given != wanted:
        raise _other_shape(edge, given, wanted)
    return Part(
        value=value.name,
        shape=shape,
        dtype=np.dtype(value.dtype),
        columns=slice(0, vectors.width),
        first=vectors.first,
    )


def fetched(edge: Edge, spec: TensorSpec, values: Mapping[str, np.ndarray]) -> np.ndarray:
    """An output as a fresh array of the caller's; `values` by name, in the program's shapes."""
    arrays = [values[value.name] for value in edge.values]
    whole = np.concatenate(arrays, axis=-1) if len(arrays) > 1 else arrays[0]
    if edge.layout is Layout.PIXELS:
        channels = spec.shape[1]
        whole = whole[..., :channels].transpose(0, 3, 1, 2)
    return np.array(whole, spec.dtype, order="C")


def _other_shape(edge: Edge, found: tuple[int, ...], wanted: tuple[int, ...]) -> IncompatibleError:
    return IncompatibleError(f"{edge.tensor} has shape {found}, the program takes {wanted}; build the engine again")
