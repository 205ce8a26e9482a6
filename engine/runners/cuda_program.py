"""A program on the GPU: its weights and kernels, what is held for it, its graphs, and one call of it."""

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ...kernels.architecture import Architecture
from ..errors import RequestError
from ..program.calls import shape_of
from ..program.launches import KernelLaunch, launch_list
from ..program.prepare import Prepared, prepare
from ..program.program import Edge, Layout, Program
from ..program.sizes import Sizes
from ..specs import ComponentSpec
from .base import Value, Values
from .cuda_edges import parts
from .cuda_graphs import Graphs
from .cuda_held import NOWHERE, HeldPool, HeldValues, Places
from .cuda_kernels import Kernels
from .cuda_staging import Staging
from .cuda_vectors import with_rows
from .cuda_words import WordTable
from .device import CudaArray, CudaDevice

MADE = frozenset({Layout.WORDS, Layout.VECTORS})
"""Layouts of inputs that the host makes something else of."""
MOST_PREPARED = 8
"""Sizes whose launch plans and arenas are kept."""


class Added:
    """What slots hold: the program that has these slots, their ranks, and their values' memory, from the pool."""

    def __init__(self, program: Program, rank: int, pool: HeldPool) -> None:
        self.program = program
        self.rank = rank
        self.values: dict[str, CudaArray] = {}
        self._pool = pool
        self._places: tuple[Places, Places] | None = None

    def places(self, others: Places) -> Places:
        """Where its values and those of inputs that are held lie."""
        if self._places is None or self._places[0] is not others:
            own = {name: array.address for name, array in self.values.items()}
            self._places = others, Places({**others.addresses, **own}.items())
        return self._places[1]

    def release(self) -> None:
        """Let the next ones have the memory. Nothing may be running."""
        self._places = None
        while self.values:
            self._pool.give(*self.values.popitem())


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
        words: WordTable | None = None,
    ) -> None:
        self._device = device
        self._spec = spec
        self._program = program
        self._arch = arch
        self._weights = weights
        self._kernels = kernels
        self._words = words
        self._graphs = Graphs(device.driver)
        self._pool = HeldPool(device)
        self._edges = {edge.tensor: edge for edge in program.inputs}
        self._prepared: OrderedDict[tuple[Sizes, frozenset[str]], tuple[Prepared, Staging]] = OrderedDict()

    def hold(self, inputs: Values, lengths: Mapping[str, int]) -> HeldValues:
        """Inputs that were checked, in memory of their own, as the program has them; `lengths` as for `run`.

        Arrays on the GPU hand theirs over: they are released. Raises `RequestError` for what the host must see first.
        """
        if (made := next((name for name in inputs if self._edges[name].layout in MADE), None)) is not None:
            raise RequestError(f"{made} cannot be held: the host works on it at every call; give it to the call")
        held = HeldValues(self._pool, self._spec, inputs.keys(), lengths)
        driver, sizes = self._device.driver, self._sizes(lengths)
        staged = []  # what is copied from, until it has arrived
        with self._device.work():
            try:
                for name, value in inputs.items():
                    array = _lies_there(value, self._edges[name], sizes) or np.asarray(value)
                    for part in parts(self._edges[name], array.shape, sizes):
                        there = held.add(part.value, part.shape, part.dtype)
                        if isinstance(array, CudaArray):
                            driver.copy(there.address, array.address, array.nbytes)
                            continue
                        staged.append(np.empty(part.shape, part.dtype))
                        part.write(staged[-1], array)
                        driver.upload(there.address, staged[-1])
            except BaseException:
                driver.synchronize()
                raise
        for value in inputs.values():
            if isinstance(value, CudaArray):
                value.release()
        return held

    def add(self, program: Program, rank: int, arrays: Mapping[str, np.ndarray]) -> Added:
        """What slots hold, by value, for this program with slots in place of its own. Raises `MemoryBudgetError`."""
        added, driver = Added(program, rank, self._pool), self._device.driver
        with self._device.work():
            try:
                for name, array in arrays.items():
                    added.values[name] = self._pool.take(name, array.shape, array.dtype)
                    driver.upload(added.values[name].address, array)
                driver.synchronize()
            except BaseException:
                driver.synchronize()
                added.release()
                raise
        return added

    def run(
        self,
        inputs: Values,
        held: HeldValues | None,
        lengths: Mapping[str, int],
        added: Added | None = None,
        keep: Collection[str] = (),
    ) -> dict[str, Value]:
        """One call on inputs that were checked; `lengths` of the symbols in their shapes, the held ones' too.

        Outputs in `keep` stay on the GPU where they are one value as it lies there, in memory of their own.
        """
        places, sizes, program = held.places if held else NOWHERE, self._sizes(lengths), self._program
        given = with_rows(self._edges, inputs if self._words is None else self._words.embedded(inputs), sizes)
        if added is not None:
            places, sizes, program = added.places(places), replace(sizes, rank=added.rank), added.program
        with self._device.work():
            prepared, staging = self._at(program, sizes, places.names)
            base, _ = self._device.scratch(prepared.arena.size)
            graph = self._graph(prepared, base, places)
            staging.send(given, base)
            self._device.driver.replay(graph)
            kept = {edge.tensor: self._kept(edge, prepared, base) for edge in program.outputs if _stays(edge, keep)}
            staging.fetch(base, without=kept)
        outputs = {**staging.outputs(without=kept), **kept}
        return outputs if self._words is None else self._words.picked(outputs, inputs)

    def release(self) -> None:
        """Give the GPU's memory back. Nothing may be running."""
        self._graphs.release()
        self._kernels.release()
        self._pool.release()
        while self._prepared:
            self._prepared.popitem()[1][1].release()
        self._weights.release()

    def _kept(self, edge: Edge, prepared: Prepared, base: int) -> CudaArray:
        """A copy of an output on the GPU."""
        (value,) = edge.values
        made = self._device.empty(shape_of(value, prepared.sizes), np.dtype(value.dtype))
        self._device.driver.copy(made.address, base + prepared.arena.values[value.name].offset, made.nbytes)
        return made.declared(np.dtype(next(one.dtype for one in self._spec.outputs if one.name == edge.tensor)))

    def _at(self, program: Program, sizes: Sizes, elsewhere: frozenset[str]) -> tuple[Prepared, Staging]:
        """Launch plans and arena, and host memory for what crosses. The values elsewhere tell which slots there are."""
        key = (sizes, elsewhere)
        if key in self._prepared:
            self._prepared.move_to_end(key)
            return self._prepared[key]
        while len(self._prepared) >= MOST_PREPARED:
            self._prepared.popitem(last=False)[1][1].release()
        prepared = prepare(program, sizes, self._arch, elsewhere=elsewhere)
        staging = Staging(self._device.driver, self._spec, program, prepared)
        self._prepared[key] = prepared, staging
        return prepared, staging

    def _graph(self, prepared: Prepared, base: int, places: Places) -> int:
        """The whole program with the arena at `base` and what is held at its places."""
        key = (prepared.sizes, base, places)
        if (graph := self._graphs.get(key)) is not None:
            return graph
        weights = {name: self._weights.address + spec.offset for name, spec in self._program.weights.items()}
        values = {name: base + place.offset for name, place in prepared.arena.values.items()}
        scratch = [{name: base + r.offset for name, r in call.items()} for call in prepared.arena.scratch]
        everything = {**weights, **values, **places.addresses}
        launches = list(launch_list(prepared.resolved.calls, everything, scratch, self._kernels.binaries))
        for launch in launches:
            self._kernels.load(launch.binary)  # before the capture, which takes nothing but launches
        return self._graphs.add(key, lambda: self._record(launches, prepared, base))

    def _record(self, launches: Sequence[KernelLaunch], prepared: Prepared, base: int) -> None:
        for launch in launches:
            self._kernels.launch(launch)

    def _sizes(self, lengths: Mapping[str, int]) -> Sizes:
        """The program's sizes from the symbols of a component's tensors; what it does not have is one.

        The tokens of a text encoder are always as many as its table has places.
        """
        fixed = {} if self._words is None else {"tokens": self._words.words.tokens}
        known = {**fixed, **lengths}
        return Sizes(**{name: known.get(name, 1) for name in ("batch", "height", "width", "tokens", "steps")})


def _stays(edge: Edge, keep: Collection[str]) -> bool:
    return edge.tensor in keep and edge.layout is Layout.ROWS


def _lies_there(value: Value, edge: Edge, sizes: Sizes) -> CudaArray | None:
    """The value itself, if it is on the GPU as the program has it."""
    if not isinstance(value, CudaArray) or edge.layout is not Layout.ROWS:
        return None
    (wanted,) = edge.values
    alike = value.stored == wanted.dtype and value.shape == shape_of(wanted, sizes)
    return value if alike and value.address else None
