"""A component with adapters: one of its open graphs, and what a call adds to it.

What adapters add stays the same over a call, so that it is brought to the back end once and bound to each call. The
rest of the pipeline sees a runner like any other.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from ..folder.manifest import ComponentEntry, checked_factors
from ..folder.openings import OpenGraph, Openings
from ..specs import ComponentSpec
from .base import Device, Footprint, Held, Range, Runner, Sizes, Value, Values


@runtime_checkable
class Opens(Protocol):
    """A runner that has open graphs of its component: the same weights, with inputs for what adapters add."""

    @property
    def openings(self) -> Openings | None:
        """Which there are; None: the engine was built without."""

    def factors_file(self) -> Path | None:
        """Where the factors of its layers are, once that file's hash has matched; None if no layer has any."""

    def opened(self, graph: OpenGraph) -> "OpenRunner":
        """The runner of one of them; always the same object."""


class OfEntry:
    """What a runner of an engine's component says of its open graphs, by the component's entry."""

    _folder: Path
    _entry: ComponentEntry

    @property
    def openings(self) -> Openings | None:
        """See `Opens`."""
        return self._entry.openings

    def factors_file(self) -> Path | None:
        """See `Opens`."""
        return checked_factors(self._folder, self._entry)


class OpenRunner(Runner, Protocol):
    """Runs an open graph. `spec` is the component's own: of the other inputs, those that are not held add nothing."""

    @property
    def graph(self) -> OpenGraph:
        """Which one."""

    def joined(self, first: Held, second: Held) -> Held:
        """What both hold, as one; it is released before they are."""

    def added_bytes(self, additions: Held) -> int:
        """What these take in the pool of the footprint, beside what whoever made them has of them."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Adapted:
    """See above; `open` may serve several calls at once, with other additions each."""

    open: OpenRunner
    additions: Held

    @property
    def name(self) -> str:
        """See `Runner`."""
        return self.open.name

    @property
    def spec(self) -> ComponentSpec:
        """See `OpenRunner`."""
        return self.open.spec

    @property
    def device(self) -> Device:
        """See `Runner`."""
        return self.open.device

    @property
    def rows(self) -> int:
        """See `Runner`."""
        return self.open.rows

    @property
    def ranges(self) -> Mapping[str, Range]:
        """See `Runner`."""
        return self.open.ranges

    @property
    def loaded(self) -> bool:
        """See `Runner`."""
        return self.open.loaded

    def footprint(self, sizes: Sizes) -> Footprint:
        """See `Runner`; without what whoever made the additions has of them."""
        own = self.open.footprint(sizes)
        return replace(own, weights=own.weights + self.open.added_bytes(self.additions))

    def load(self) -> None:
        """See `Runner`."""
        self.open.load()

    def release(self) -> None:
        """See `Runner`; the additions stay."""
        self.open.release()

    def leave_behind(self) -> None:
        """See `Runner`."""
        self.open.leave_behind()

    def hold(self, inputs: Values) -> Held:
        """See `Runner`."""
        return self.open.joined(self.additions, self.open.hold(inputs))

    def __call__(self, inputs: Values, held: Held | None = None, *, keep: Collection[str] = ()) -> dict[str, Value]:
        """See `Runner`."""
        return self.open(inputs, self.additions if held is None else held, keep=keep)


def form_of(runner: Runner) -> Runner:
    """What of a component is loaded when this runner is: of an adapted one the open graph, which others share."""
    return runner.open if isinstance(runner, Adapted) else runner


def openings_of(runner: object) -> Openings | None:
    """The open graphs of a runner's component; None where it has none, or cannot run any."""
    return runner.openings if isinstance(runner, Opens) else None


def graph_for(runner: Opens, layers: Collection[str], inputs: Collection[str] = ()) -> OpenGraph | None:
    """The graph that takes pairs for these layers and these inputs: one that is loaded, or else the first; or None."""
    openings = runner.openings
    if openings is None:
        return None
    fitting = [
        graph
        for graph in openings.graphs
        if set(layers) <= openings.shapes(graph.groups).keys() and set(inputs) <= {t.name for t in graph.inputs}
    ]
    return next((graph for graph in fitting if runner.opened(graph).loaded), next(iter(fitting), None))
