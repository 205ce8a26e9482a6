"""A component with deep features that are kept: its whole network and its outermost level, as one runner."""

from collections.abc import Collection
from typing import Protocol, runtime_checkable

from ..folder.openings import CachedGraphs, Openings
from ..specs import TensorSpec
from .adapted import OpenRunner, form_of
from .base import Runner


@runtime_checkable
class GivesFeatures(Protocol):
    """What is asked of a runner to know whether it does."""

    @property
    def feature(self) -> TensorSpec:
        """What the whole network gives besides its outputs, and what the outermost level takes."""


class CachedRunner(OpenRunner, GivesFeatures, Protocol):
    """A call with the feature among its inputs runs the outermost level, one without it the whole network."""


@runtime_checkable
class Caches(Protocol):
    """A runner that has such graphs."""

    @property
    def openings(self) -> Openings | None:
        """See `Opens`."""

    def cached(self, graphs: CachedGraphs) -> CachedRunner:
        """The runner of two of them that go together; always the same object."""


def cached_for(runner: object, layers: Collection[str], inputs: Collection[str]) -> CachedRunner | None:
    """The runner that takes pairs for these layers and these inputs: one that is loaded, or else the first; or None."""
    openings = runner.openings if isinstance(runner, Caches) else None
    if openings is None or not isinstance(runner, Caches):
        return None
    fitting = [
        runner.cached(graphs)
        for graphs in openings.cached
        if set(layers) <= openings.shapes(graphs.whole.groups).keys()
        and set(inputs) <= {tensor.name for tensor in graphs.whole.inputs}
    ]
    return next((one for one in fitting if one.loaded), next(iter(fitting), None))


def feature_of(runner: Runner) -> TensorSpec | None:
    """What a runner keeps from one call to the next; None where it keeps nothing."""
    form = form_of(runner)
    return form.feature if isinstance(form, GivesFeatures) else None
