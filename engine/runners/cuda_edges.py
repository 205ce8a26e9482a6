"""A component's inputs as its program has them on the GPU, and its outputs as the host has them.

Each number is converted and moved once: out of the caller's array straight into memory that the GPU copies from, and
back likewise.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import IncompatibleError
from ..program.calls import shape_of
from ..program.program import Edge, Layout, Program
from ..program.sizes import Sizes
from ..specs import ComponentSpec, TensorSpec


@dataclass(frozen=True, kw_only=True)
class Part:
    """What becomes one value: the caller's numbers, in the value's shape but for zeros that it has behind them."""

    value: str
    shape: tuple[int, ...]
    dtype: np.dtype
    source: np.ndarray
    """The last axis may be shorter than that of `shape`: zeros follow."""

    def write(self, array: np.ndarray) -> None:
        """Into an array of that shape and dtype."""
        width = self.source.shape[-1]
        np.copyto(array[..., :width], self.source, casting="same_kind")
        array[..., width:] = 0


def check_edges(program: Program, spec: ComponentSpec, where: str) -> None:
    """Raise `IncompatibleError` unless a program takes and gives what its component does."""
    for side in ("inputs", "outputs"):
        wanted = {tensor.name for tensor in getattr(spec, side)}
        found = {edge.tensor for edge in getattr(program, side)}
        if wanted != found:
            raise IncompatibleError(
                f"{where} has the {side} {sorted(found)}, its component has {sorted(wanted)}; build the engine again"
            )


def parts(edge: Edge, array: np.ndarray, sizes: Sizes) -> Iterator[Part]:
    """An input as its values. Raises `IncompatibleError` where the program means another shape."""
    if edge.layout is Layout.PIXELS:
        array = array.transpose(0, 2, 3, 1)
    start = 0
    for value in edge.values:
        shape = shape_of(value, sizes)
        source = array
        if edge.layout is Layout.COLUMNS:
            source = array[:, start : start + shape[-1]]
            start += shape[-1]
        spare = shape[-1] - source.shape[-1]
        if shape[:-1] != source.shape[:-1] or spare < 0 or (spare and edge.layout is not Layout.PIXELS):
            raise _other_shape(edge, array.shape, shape)
        yield Part(value=value.name, shape=shape, dtype=np.dtype(value.dtype), source=source)
    if edge.layout is Layout.COLUMNS and start != array.shape[-1]:
        raise _other_shape(edge, array.shape, (array.shape[0], start))


def fetched(edge: Edge, spec: TensorSpec, values: Mapping[str, np.ndarray]) -> np.ndarray:
    """An output as a fresh array of the caller's; `values` by name, in the program's shapes."""
    arrays = [values[value.name] for value in edge.values]
    whole = np.concatenate(arrays, axis=-1) if len(arrays) > 1 else arrays[0]
    if edge.layout is Layout.PIXELS:
        channels = spec.shape[1]
        whole = whole[..., :channels].transpose(0, 3, 1, 2)
    return np.array(whole, spec.dtype, order="C")


def _other_shape(edge: Edge, found: tuple[int, ...], wanted: tuple[int, ...]) -> IncompatibleError:
    return IncompatibleError(
        f"{edge.tensor} has shape {found} in the order of the program, which takes {wanted}; build the engine again"
    )
