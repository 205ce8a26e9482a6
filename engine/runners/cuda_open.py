"""Programs with slots: as the plain one, and where a LoRA has pairs, with the calls that add them.

What is added lies on the GPU for as long as calls ask for it, at addresses that the next LoRA of the same ranks takes
over: graphs stay good, and a swap is a copy.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ..errors import RequestError
from ..folder.manifest import ComponentEntry, checked_file
from ..folder.openings import OpenGraph, Shape, pair_inputs
from ..program.program import Program
from ..program.read import PROGRAM_FILE, WEIGHTS_FILE, read_program
from ..program.slots import Slot, opened, read_slots
from ..specs import ComponentSpec, TensorSpec
from .base import Footprint, Held, Sizes, Value, Values, check_inputs
from .cuda import CudaRunner
from .cuda_held import HeldValues
from .cuda_program import Added
from .cuda_slots import Floats, Pair, rank_for, slot_arrays
from .device import CudaDevice


@dataclass(frozen=True, eq=False, kw_only=True)
class Additions:
    """Pairs as the slots have them, on the host. `given`: what they were made of, so that it is known again."""

    given: Mapping[str, Value]
    program: Program
    rank: int
    arrays: Mapping[str, np.ndarray]

    @property
    def bytes(self) -> int:
        """What they take on the GPU, and here."""
        return sum(array.nbytes for array in self.arrays.values())

    def made_of(self, inputs: Values) -> bool:
        """Whether it was these very arrays."""
        return self.given.keys() == inputs.keys() and all(self.given[name] is value for name, value in inputs.items())

    def release(self) -> None:
        """See `Held`; they go with whoever holds them."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Both:
    """Additions, and inputs that are held."""

    additions: Additions
    inputs: HeldValues

    def release(self) -> None:
        """See `Held`; the additions stay."""
        self.inputs.release()


class CudaOpenRunner(CudaRunner):
    """Runs a component's program with slots."""

    def __init__(self, folder: Path, name: str, entry: ComponentEntry, device: CudaDevice, graph: OpenGraph) -> None:
        super().__init__(folder, name, entry, device)
        self.graph = graph
        self._last: Additions | None = None
        self._resident: tuple[Additions, Added] | None = None

    @cached_property
    def _layers(self) -> Mapping[str, Shape]:
        assert self._entry.openings is not None
        return self._entry.openings.shapes(self.graph.groups)

    @cached_property
    def _pairs(self) -> Mapping[str, str]:
        """Input of a pair → its layer; of each layer's two the way down comes first."""
        return {tensor.name: layer for layer, shape in self._layers.items() for tensor in pair_inputs(layer, shape)}

    @cached_property
    def _program(self) -> tuple[Program, Sequence[Slot]]:
        program = read_program(checked_file(self._folder, self._entry, PROGRAM_FILE))
        return program, read_slots(checked_file(self._folder, self._entry, self.graph.file), program)

    def footprint(self, sizes: Sizes) -> Footprint:
        """See `Runner`: with the working memory of all slots."""
        working = self.graph.activation.bytes_at(sizes.pixels, batch=sizes.rows, tokens=sizes.tokens, steps=sizes.steps)
        return replace(super().footprint(sizes), working=working)

    def added_bytes(self, additions: Held) -> int:
        """See `OpenRunner`."""
        return additions.bytes if isinstance(additions, Additions) else 0

    def release(self) -> None:
        """See `Runner`; the additions stay on the host."""
        self._leave()
        super().release()

    def hold(self, inputs: Values) -> Held:
        """Pairs, whose numbers are made ready on the host, or the component's inputs; see `Runner`."""
        if not any(name in self._pairs for name in inputs):
            return super().hold(inputs)
        if self._last is None or not self._last.made_of(inputs):
            self._last = self._additions(inputs)
        return self._last

    def joined(self, first: Held, second: Held) -> Held:
        """See `OpenRunner`."""
        assert isinstance(first, Additions)
        assert isinstance(second, HeldValues)
        return Both(additions=first, inputs=second)

    def __call__(self, inputs: Values, held: Held | None = None, *, keep: Collection[str] = ()) -> dict[str, Value]:
        """Run once; see `Runner`."""
        additions = held.additions if isinstance(held, Both) else held if isinstance(held, Additions) else None
        constant = held.inputs if isinstance(held, Both) else held if isinstance(held, HeldValues) else None
        spec, lengths = (constant.missing, constant.lengths) if constant else (self.spec, None)
        more = tuple(tensor for tensor in self.graph.inputs if tensor.name in inputs)
        lengths = check_inputs(self.name, replace(spec, inputs=(*spec.inputs, *more)), inputs, lengths)
        loaded = self._ready()
        self.device.driver.enter()
        added = None if additions is None else self._added(additions)
        return loaded.run(inputs, constant, lengths, added, keep)

    def _additions(self, inputs: Values) -> Additions:
        if unknown := sorted(set(inputs) - set(self._pairs)):
            raise RequestError(f"{self.name}: {self.graph.file} takes no inputs {unknown[:3]} beside pairs")
        tensors: list[TensorSpec] = []
        pairs: dict[str, Pair] = {}
        for layer in dict.fromkeys(self._pairs[name] for name in inputs):
            down, up = pair_inputs(layer, self._layers[layer])
            tensors += (down, up)
            if down.name in inputs and up.name in inputs:
                pairs[layer] = (np.asarray(inputs[down.name]), np.asarray(inputs[up.name]))
        check_inputs(self.name, ComponentSpec(role=self.spec.role, inputs=tuple(tensors), outputs=()), inputs)
        program, slots = self._program
        rank = rank_for(pairs)
        arrays: dict[str, np.ndarray] = {}
        for slot in slots:
            if not pairs.keys().isdisjoint(slot.layers):
                arrays |= slot_arrays(slot, pairs, self._layers, rank, self._inverse(program, slot))
        return Additions(given=dict(inputs), program=opened(program, slots, pairs), rank=rank, arrays=arrays)

    def _inverse(self, program: Program, slot: Slot) -> Floats | None:
        """What the slot's input was multiplied with, from the weights' file."""
        if slot.inverse is None:
            return None
        spec = program.weights[slot.inverse]
        path = checked_file(self._folder, self._entry, WEIGHTS_FILE)
        return np.fromfile(path, np.float32, count=spec.shape[0], offset=spec.offset)

    def _added(self, additions: Additions) -> Added:
        """On the GPU, in place of others."""
        if self._resident is None or self._resident[0] is not additions:
            self._leave()
            loaded = self._ready()
            self._resident = additions, loaded.add(additions.program, additions.rank, additions.arrays)
        return self._resident[1]

    def _leave(self) -> None:
        if self._resident is not None:
            (_, added), self._resident = self._resident, None
            added.release()
