"""Open graphs on ONNX Runtime: as the plain one, with what adapters add bound to every call.

An engine of SDXL takes 1,600 inputs more. Handed over by name they cost 50 ms a call, bound a millisecond.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ending import Ended
from ..errors import RequestError
from ..folder.manifest import checked_file
from ..folder.openings import OpenGraph, pair_inputs
from ..specs import ComponentSpec, TensorSpec
from .base import Footprint, Held, Sizes, Value, Values, check_inputs
from .interruptible import run_interruptibly
from .ort import OrtDevice, OrtRunner
from .ort_binding import BoundArray, BoundHeld, run_bound
from .ort_memory import footprint_of
from .ort_session import check_edge, import_onnxruntime, run_error, run_options

if TYPE_CHECKING:
    from ..folder.manifest import ComponentEntry


class OrtOpenRunner(OrtRunner):
    """Runs one of a component's open graphs."""

    def __init__(self, folder: Path, name: str, entry: "ComponentEntry", device: OrtDevice, graph: OpenGraph) -> None:
        super().__init__(folder, name, entry, device)
        self.graph = graph

    @cached_property
    def added(self) -> Mapping[str, TensorSpec]:
        """What the graph takes beyond the component's own inputs, by name."""
        openings = self._entry.openings
        assert openings is not None
        pairs = [pair_inputs(layer, shape) for layer, shape in openings.shapes(self.graph.groups).items()]
        return {tensor.name: tensor for tensor in (*(one for pair in pairs for one in pair), *self.graph.inputs)}

    @cached_property
    def _nothing(self) -> Mapping[str, BoundArray]:
        """For each of them numbers of no length, which add nothing."""
        shapes = {
            name: tuple(side if isinstance(side, int) else 0 for side in tensor.shape)
            for name, tensor in self.added.items()
        }
        return {
            name: BoundArray(np.zeros(shape, self.added[name].dtype), self._memory) for name, shape in shapes.items()
        }

    @property
    def _memory(self) -> str:
        return self.device.provider.memory or "cpu"

    def footprint(self, sizes: Sizes) -> Footprint:
        """See `Runner`: as the plain graph's, with the working memory of the branches."""
        return footprint_of(replace(self._entry, activation=self.graph.activation), sizes, self.device.provider.pool)

    def streamed(self, sizes: Sizes) -> Footprint | None:
        """See `Streams`: an open graph is not cut into segments."""
        return None

    def _open(self) -> Any:
        session = self._open_one(checked_file(self._folder, self._entry, self.graph.file))
        edge = ComponentSpec(
            role=self.spec.role, inputs=(*self.spec.inputs, *self.added.values()), outputs=self.spec.outputs
        )
        check_edge(self.name, session, edge)
        return session

    def hold(self, inputs: Values) -> Held:
        """See `Runner`; any of the component's inputs and of those that are added. Raises `RequestError`."""
        own = {tensor.name: tensor for tensor in self.spec.inputs}
        known = {**own, **self.added}
        if unknown := sorted(set(inputs) - set(known)):
            raise RequestError(f"{self.name}: {self.graph.file} takes no inputs {unknown[:3]}")
        spec = ComponentSpec(role=self.spec.role, inputs=tuple(known[name] for name in inputs), outputs=())
        check_inputs(self.name, spec, inputs)
        return BoundHeld({name: BoundArray(np.asarray(value), self._memory) for name, value in inputs.items()})

    def joined(self, first: Held, second: Held) -> Held:
        """See `OpenRunner`."""
        assert isinstance(first, BoundHeld)
        assert isinstance(second, BoundHeld)
        return BoundHeld({**first.arrays, **second.arrays})

    def added_bytes(self, additions: Held) -> int:
        """See `OpenRunner`: nothing."""
        return 0

    def __call__(self, inputs: Values, held: Held | None = None, *, keep: Collection[str] = ()) -> dict[str, Value]:
        """Run once; see `Runner`. What is held was checked when it was; every output is on the host."""
        assert held is None or isinstance(held, BoundHeld)
        given = {} if held is None else held.arrays
        feeds = {name: np.ascontiguousarray(value) for name, value in inputs.items()}
        own = {name: array for name, array in given.items() if name not in self.added}
        more = tuple(self.added[name] for name in feeds if name in self.added)
        check_inputs(self.name, replace(self.spec, inputs=(*self.spec.inputs, *more)), {**feeds, **own})
        bound = {**{name: array for name, array in self._nothing.items() if name not in feeds}, **given}
        self.load()
        session, outputs = self._session, [tensor.name for tensor in self.spec.outputs]
        options = run_options(import_onnxruntime(), shrink=self.device.provider.arenas if self._shrinks else "")
        try:
            values = run_interruptibly(
                lambda: run_bound(session, feeds, bound, outputs, options), partial(setattr, options, "terminate", True)
            )
            return {name: np.array(value) for name, value in zip(outputs, values, strict=True)}
        except Ended:
            raise
        except Exception as error:
            raise run_error(error, self.name, self._place) from error
