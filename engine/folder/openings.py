"""Open graphs: the same component over the same file of weights, with inputs for what adapters add to it.

A component has its plain graph, and beside it graphs that take more: for every layer a low-rank pair (LoRA), and
whatever else a row of `export.graph.openings` puts in. An open graph has no weights of its own. Each place costs
something even where nothing is added there, so there are several graphs, each with more places than the one before it,
and a call gets the first that has all that it needs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..specs import SPARSE, TensorSpec
from .activation import ActivationModel

Shape = tuple[int, ...]
"""Of a layer's weight: `(out, in)`, of a convolution `(out, in, height, width)`."""


@dataclass(frozen=True, kw_only=True)
class OpenGraph:
    """One graph: its file and what it takes beside the component's own inputs."""

    file: str
    """Its name, beside the component's other files."""
    groups: tuple[str, ...]
    """Of `Openings.layers`: the layers that take pairs."""
    activation: ActivationModel
    """Working memory of a call in which every layer has a pair."""
    inputs: tuple[TensorSpec, ...] = ()
    """What it takes besides pairs."""


@dataclass(frozen=True, kw_only=True)
class ShallowGraph:
    """A U-Net's outermost level alone: what lies below it is an input, as an earlier call of the whole gave it."""

    file: str
    """Its name, beside the component's other files."""
    own: tuple[str, ...]
    """Of the component's own inputs those that it takes."""
    layers: tuple[str, ...]
    """Those that take pairs."""
    activation: ActivationModel
    """Working memory of a call in which every one of them has a pair."""
    weight_bytes: int
    """Of the component's weights those that it reads; a runtime may hold them a second time for it."""
    inputs: tuple[TensorSpec, ...] = ()
    """What it takes besides these, but for the feature."""


@dataclass(frozen=True, kw_only=True)
class CachedGraphs:
    """Two graphs that go together: see `engine.deep_features`."""

    feature: TensorSpec
    """What enters the last level of the way up: an output of the whole, an input of the shallow one."""
    whole: OpenGraph
    shallow: ShallowGraph


@dataclass(frozen=True, kw_only=True)
class Openings:
    """All open graphs of one component."""

    layers: Mapping[str, Mapping[str, Shape]]
    """Group → layer → the shape of its weight. A layer that was cut into parts (`ff.net.0.proj`) is there by its parts
    (`ff.net.0.proj.0`, …), which have its rows in turn."""
    factors: str
    """A file beside the graphs: see `adapters.factors`; empty where no layer has any."""
    graphs: tuple[OpenGraph, ...]
    """From the one with the fewest places on."""
    cached: tuple[CachedGraphs, ...] = field(default=(), metadata=SPARSE)
    """Likewise; empty where nothing can be kept from one call to the next."""

    def shapes(self, groups: tuple[str, ...]) -> dict[str, Shape]:
        """The layers of these groups, in order."""
        return {layer: shape for group in groups for layer, shape in self.layers[group].items()}


def pair_inputs(layer: str, shape: Shape) -> tuple[TensorSpec, TensorSpec]:
    """The two inputs of a layer's pair. A linear layer's are transposed, as its products take them.

    Each layer has a rank of its own, and rank 0 where nothing is added.
    """
    rank = f"rank.{layer}"
    out, taken, *kernel = shape
    if kernel:
        down: tuple[int | str, ...] = (rank, taken, *kernel)
        up: tuple[int | str, ...] = (out, rank, *(1 for _ in kernel))
    else:
        down, up = (taken, rank), (rank, out)
    return TensorSpec(name=f"lora.{layer}.down", shape=down), TensorSpec(name=f"lora.{layer}.up", shape=up)


def files_of(openings: Openings | None) -> frozenset[str]:
    """The names of their files, which the plain graph does without."""
    if openings is None:
        return frozenset()
    graphs = [*openings.graphs, *(graph for pair in openings.cached for graph in (pair.whole, pair.shallow))]
    return frozenset({graph.file for graph in graphs} | ({openings.factors} if openings.factors else set()))
