"""A program on the GPU: its weights and kernels, what is held for it, its graphs, and one call of it."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from ...kernels.architecture import Architecture
from ..errors import RequestError
from ..program.calls import shape_of
from ..program.launches import KernelLaunch, launch_list
from ..program.prepare import Prepared, prepare
from ..program.program import Edge, Program
from ..program.sizes import Sizes
from ..specs import ComponentSpec
from .base import Value, Values, check_inputs
from .cuda_edges import fetched, parts
from .cuda_graphs import Graphs
from .cuda_held import HeldPool, HeldValues, shape_only
from .cuda_kernels import Kernels
from .device import CudaArray, CudaDevice
from .pinned import Pinned

MOST_PREPARED = 8
"""Sizes whose launch plans and arenas are kept."""


class LoadedProgram:
    """What there is between `load` and `release`. `weights` are the bytes of `weights.bin`."""

    def __init__(
        self,
        device: CudaDevice,
        spec: ComponentSpec,
        program: Program,
        arch: Architecture,
        *,
        weights: CudaArray,
        kernels: Kernels,
    ) -> None:
        self._device = device
        self._spec = spec
        self._program = program
        self._arch = arch
        self._weights = weights
        self._kernels = kernels
        self._graphs = Graphs(device.driver)
        self._pool = HeldPool(device)
        self._pinned: dict[str, Pinned] = {}
        self._edges = {edge.tensor: edge for edge in program.inputs}
        self._prepared: OrderedDict[tuple[Sizes, frozenset[str]], Prepared] = OrderedDict()

    def hold(self, inputs: Values) -> HeldValues:
        """Inputs in memory of their own, as the program has them. Raises `RequestError` for one that it has not."""
        driver = self._device.driver
        driver.synchronize()  # an exception may have left a call running that reads what is free now
        held = HeldValues(self._pool)
        staged = []  # what is copied from, until it has arrived
        try:
            for name, value in inputs.items():
                array = np.asarray(value)
                for part in parts(self._edge(name), array, self._alone(name, array)):
                    staged.append(np.empty(part.shape, part.dtype))
                    part.write(staged[-1])
                    driver.upload(held.add(part.value, part.shape, part.dtype).address, staged[-1])
                held.inputs[name] = shape_only(array)
        finally:
            driver.synchronize()
        return held

    def run(self, inputs: Values, held: HeldValues | None, lengths: Mapping[str, int]) -> dict[str, Value]:
        """One call on inputs that were checked; `lengths` of the symbols in their shapes."""
        driver = self._device.driver
        driver.synchronize()  # an exception may have left a copy or a call under way
        places = held.addresses() if held else ()
        prepared = self._at(_sizes(lengths), frozenset(name for name, _ in places))
        base, _ = self._device.scratch(prepared.arena.size)
        graph = self._graph(prepared, base, places)
        for name, value in inputs.items():
            for part in parts(self._edge(name), np.asarray(value), prepared.sizes):
                here = self._here(f"input {part.value}", part.shape, part.dtype)
                part.write(here)
                driver.upload(base + prepared.arena.values[part.value].offset, here)
        driver.replay(graph)
        return self._outputs(prepared, base)

    def release(self) -> None:
        """Give the GPU's memory back. Nothing may be running."""
        self._graphs.release()
        self._kernels.release()
        self._pool.release()
        while self._pinned:
            self._pinned.popitem()[1].release()
        self._weights.release()

    def _at(self, sizes: Sizes, elsewhere: frozenset[str]) -> Prepared:
        """Launch plans and arena."""
        key = (sizes, elsewhere)
        if key in self._prepared:
            self._prepared.move_to_end(key)
            return self._prepared[key]
        while len(self._prepared) >= MOST_PREPARED:
            self._prepared.popitem(last=False)
        made = self._prepared[key] = prepare(self._program, sizes, self._arch, elsewhere=elsewhere)
        return made

    def _graph(self, prepared: Prepared, base: int, places: tuple[tuple[str, int], ...]) -> int:
        """The whole program with the arena at `base` and what is held at its places."""
        key = (prepared.sizes, base, places)
        if (graph := self._graphs.get(key)) is not None:
            return graph
        weights = {name: self._weights.address + spec.offset for name, spec in self._program.weights.items()}
        values = {name: base + place.offset for name, place in prepared.arena.values.items()}
        scratch = [{name: base + r.offset for name, r in call.items()} for call in prepared.arena.scratch]
        everything = {**weights, **values, **dict(places)}
        launches = list(launch_list(prepared.resolved.calls, everything, scratch, self._kernels.binaries))
        for launch in launches:
            self._kernels.load(launch.binary)  # before the capture, which takes nothing but launches
        return self._graphs.add(key, lambda: self._record(launches, prepared, base))

    def _record(self, launches: Sequence[KernelLaunch], prepared: Prepared, base: int) -> None:
        for launch in launches:
            self._kernels.launch(launch)

    def _outputs(self, prepared: Prepared, base: int) -> dict[str, Value]:
        """Wait for the call's end; fresh host arrays."""
        here = {}
        for value in (value for edge in self._program.outputs for value in edge.values):
            shape, dtype = shape_of(value, prepared.sizes), np.dtype(value.dtype)
            here[value.name] = self._here(f"output {value.name}", shape, dtype)
            self._device.driver.download(here[value.name], base + prepared.arena.values[value.name].offset)
        self._device.driver.synchronize()
        specs = {tensor.name: tensor for tensor in self._spec.outputs}
        return {edge.tensor: fetched(edge, specs[edge.tensor], here) for edge in self._program.outputs}

    def _here(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Host memory for what crosses at every call; a larger one where the shape does not fit."""
        size = prod(shape) * dtype.itemsize
        if (pinned := self._pinned.get(name)) is None or pinned.capacity < size:
            if pinned is not None:
                del self._pinned[name]
                pinned.release()
            pinned = self._pinned[name] = Pinned(self._device.driver, size)
        return pinned.array(shape, dtype)

    def _edge(self, name: str) -> Edge:
        if name not in self._edges:
            raise RequestError(f"there is no input {name}; there are {', '.join(self._edges)}")
        return self._edges[name]

    def _alone(self, name: str, array: np.ndarray) -> Sizes:
        """The sizes that one input tells by itself."""
        inputs = tuple(tensor for tensor in self._spec.inputs if tensor.name == name)
        return _sizes(check_inputs(name, ComponentSpec(role=self._spec.role, inputs=inputs, outputs=()), {name: array}))


def _sizes(lengths: Mapping[str, int]) -> Sizes:
    """The program's sizes from the symbols of a component's tensors; what it does not have is one."""
    return Sizes(**{name: lengths.get(name, 1) for name in ("batch", "height", "width", "tokens")})
