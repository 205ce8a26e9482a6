"""A U-Net that gives its deep features, and its outermost level that takes them, over one file of weights.

Two sessions. ONNX Runtime lays weights out anew for each, so that the outermost level's are in memory twice: 14 of the
2,200 million of SDXL's base.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..folder.openings import CachedGraphs, OpenGraph
from ..specs import ComponentSpec, TensorSpec
from .base import Footprint, Held, Range, Sizes, Value, Values
from .ort import OrtDevice
from .ort_open import OrtOpenRunner

if TYPE_CHECKING:
    from ..folder.manifest import ComponentEntry

_GROUP = "shallow"


@dataclass(frozen=True, eq=False, kw_only=True)
class _BothHeld:
    """What the two hold."""

    whole: Held
    shallow: Held

    def release(self) -> None:
        """See `Held`."""
        self.whole.release()
        self.shallow.release()


class OrtCachedRunner:
    """Both as one runner: see `CachedRunner`."""

    def __init__(
        self, folder: Path, name: str, entry: "ComponentEntry", device: OrtDevice, graphs: CachedGraphs
    ) -> None:
        self.name = name
        self.spec = entry.spec
        self.device = device
        self.graph = graphs.whole
        self.feature = graphs.feature
        giving = replace(entry.spec, outputs=(*entry.spec.outputs, graphs.feature))
        self._whole = OrtOpenRunner(folder, name, replace(entry, spec=giving), device, graphs.whole)
        outermost, graph = _outermost(entry, graphs)
        self._shallow = OrtOpenRunner(folder, name, outermost, device, graph)

    @property
    def rows(self) -> int:
        """See `Runner`."""
        return self._whole.rows

    @property
    def ranges(self) -> Mapping[str, Range]:
        """See `Runner`."""
        return self._whole.ranges

    @property
    def loaded(self) -> bool:
        """See `Runner`."""
        return self._whole.loaded and self._shallow.loaded

    def footprint(self, sizes: Sizes) -> Footprint:
        """See `Runner`: of both, each of which keeps its own working memory."""
        whole, shallow = self._whole.footprint(sizes), self._shallow.footprint(sizes)
        return Footprint(
            pool=whole.pool,
            weights=whole.weights + shallow.weights,
            working=whole.working + shallow.working,
            retained=whole.retained + shallow.retained,
        )

    def load(self) -> None:
        """See `Runner`."""
        self._whole.load()
        try:
            self._shallow.load()
        except Exception:
            self._whole.release()
            raise

    def release(self) -> None:
        """See `Runner`."""
        self._whole.release()
        self._shallow.release()

    def leave_behind(self) -> None:
        """See `Runner`."""
        self._whole.leave_behind()
        self._shallow.leave_behind()

    def hold(self, inputs: Values) -> Held:
        """See `Runner`; the outermost level holds what it takes of it."""
        return _BothHeld(whole=self._whole.hold(inputs), shallow=self._shallow.hold(self._of_shallow(inputs)))

    def joined(self, first: Held, second: Held) -> Held:
        """See `OpenRunner`."""
        assert isinstance(first, _BothHeld)
        assert isinstance(second, _BothHeld)
        return _BothHeld(
            whole=self._whole.joined(first.whole, second.whole),
            shallow=self._shallow.joined(first.shallow, second.shallow),
        )

    def added_bytes(self, additions: Held) -> int:
        """See `OpenRunner`: nothing."""
        return 0

    def __call__(self, inputs: Values, held: Held | None = None, *, keep: Collection[str] = ()) -> dict[str, Value]:
        """Run the whole network, or with the feature among the inputs the outermost level; see `Runner`."""
        assert held is None or isinstance(held, _BothHeld)
        if self.feature.name not in inputs:
            return self._whole(inputs, held and held.whole, keep=keep)
        return self._shallow(self._of_shallow(inputs), held and held.shallow, keep=keep)

    def _of_shallow(self, inputs: Values) -> Values:
        known = {*(tensor.name for tensor in self._shallow.spec.inputs), *self._shallow.added}
        return {name: value for name, value in inputs.items() if name in known}


def _outermost(entry: "ComponentEntry", graphs: CachedGraphs) -> "tuple[ComponentEntry, OpenGraph]":
    """The outermost level as a component of its own, and its graph."""
    graph, openings = graphs.shallow, entry.openings
    assert openings is not None
    shapes = openings.shapes(tuple(openings.layers))
    own: list[TensorSpec] = [tensor for tensor in entry.spec.inputs if tensor.name in graph.own]
    alone = replace(
        entry,
        spec=ComponentSpec(role=entry.spec.role, inputs=(*own, graphs.feature), outputs=entry.spec.outputs),
        openings=replace(openings, layers={_GROUP: {name: shapes[name] for name in graph.layers}}),
        weight_bytes=graph.weight_bytes,
        # Whether there are any decides how sessions are set, which must be alike.
        int8_bytes=min(entry.int8_bytes, graph.weight_bytes),
        streaming=None,
    )
    return alone, OpenGraph(file=graph.file, groups=(_GROUP,), activation=graph.activation, inputs=graph.inputs)
