"""Host memory that the inputs of a call are written into and its outputs arrive in, at one size.

It is laid out once, and as the arena is: a call converts each number straight to where the GPU copies from, and one
copy brings all of them.
"""

from collections.abc import Collection, Iterator
from math import prod

import numpy as np

from ..program.calls import shape_of
from ..program.checks import ALIGNMENT
from ..program.prepare import Prepared
from ..program.program import Edge, Program
from ..specs import ComponentSpec, TensorSpec
from .base import Value, Values
from .cuda_driver import CudaDriver
from .cuda_edges import Part, fetched, parts
from .pinned import Pinned


class Staging:
    """Of one set of sizes, with the inputs that are not held. Raises `IncompatibleError` for a program of others."""

    def __init__(self, driver: CudaDriver, spec: ComponentSpec, program: Program, prepared: Prepared) -> None:
        self._driver = driver
        places, sizes = prepared.arena.values, prepared.sizes
        self._outputs = program.outputs
        self._specs = {tensor.name: tensor for tensor in spec.outputs}
        values = [value for edge in program.outputs for value in edge.values]
        shapes = [(value.name, shape_of(value, sizes), np.dtype(value.dtype)) for value in values]
        ends = [prepared.arena.given]
        for name, _, _ in shapes:
            ends.append(ends[-1] + _whole_lines(places[name].size))
        self._pinned = Pinned(driver, ends[-1])
        memory = self._pinned.array((ends[-1],), np.dtype(np.uint8))
        self._given = memory[: prepared.arena.given]
        self._arriving = {
            name: (_view(memory, start, shape, dtype), places[name].offset)
            for (name, shape, dtype), start in zip(shapes, ends, strict=False)
        }
        edges = {edge.tensor: edge for edge in program.inputs if edge.values[0].name in places}
        self._writes = {
            tensor.name: tuple(
                (part, _view(memory, places[part.value].offset, part.shape, part.dtype))
                for part in _parts(edges[tensor.name], tensor, prepared)
            )
            for tensor in spec.inputs
            if tensor.name in edges
        }

    def send(self, inputs: Values, base: int) -> None:
        """Write the inputs, and let them be copied to the arena at `base`. Nothing may be on its way."""
        for name, value in inputs.items():
            array = np.asarray(value)
            for part, here in self._writes[name]:
                part.write(here, array)
        if self._given.size:
            self._driver.upload(base, self._given)

    def fetch(self, base: int, *, without: Collection[str] = ()) -> None:
        """Let the outputs, `without` some, be copied from the arena at `base`."""
        for edge in self._outputs:
            if edge.tensor not in without:
                for here, offset in (self._arriving[value.name] for value in edge.values):
                    self._driver.download(here, base + offset)

    def outputs(self, *, without: Collection[str] = ()) -> dict[str, Value]:
        """What has arrived, as fresh host arrays."""
        here = {name: array for name, (array, _) in self._arriving.items()}
        return {
            edge.tensor: fetched(edge, self._specs[edge.tensor], here)
            for edge in self._outputs
            if edge.tensor not in without
        }

    def release(self) -> None:
        """Give the memory back. Nothing may be on its way."""
        self._writes.clear()
        self._arriving.clear()
        self._pinned.release()


def _parts(edge: Edge, tensor: TensorSpec, prepared: Prepared) -> Iterator[Part]:
    """Those of an input at these sizes, as it is by now: ids are vectors, vectors have a row for each evaluation."""
    sizes = prepared.sizes
    if edge.vectors is not None:
        return parts(edge, (*shape_of(edge.values[0], sizes)[:-1], edge.vectors.width), sizes)
    shape = tuple(d if isinstance(d, int) else getattr(sizes, d) for d in tensor.shape)
    return parts(edge, shape if edge.words is None else (*shape, edge.words.width), sizes)


def _view(memory: np.ndarray, start: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    return memory[start : start + prod(shape) * dtype.itemsize].view(dtype).reshape(shape)


def _whole_lines(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
