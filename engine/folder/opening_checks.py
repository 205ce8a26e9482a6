"""What `engine.json` says of a component's open graphs must agree with itself and with its files."""

import reprlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..specs import FLOAT, INT, TensorSpec
from .activation import activation_faults
from .openings import CachedGraphs, OpenGraph, Openings, files_of, pair_inputs

if TYPE_CHECKING:
    from .manifest import ComponentEntry

_MOST_CHARACTERS = 300
"""Of a layer's or an input's name."""
_MOST_LENGTH = 1 << 20
"""Of a dimension."""
_DIMENSIONS = (2, 4)
"""Of the weight of a linear layer, and of a convolution."""


def opening_faults(openings: Openings, entry: "ComponentEntry") -> Iterator[str]:
    """What is wrong with a component's open graphs."""
    files = {file.name for file in entry.files}
    graphs = [*openings.graphs, *(graph for pair in openings.cached for graph in (pair.whole, pair.shallow))]
    named = [*(graph.file for graph in graphs), *([openings.factors] if openings.factors else [])]
    if not openings.graphs or len(set(named)) != len(named) or not files_of(openings) <= files:
        yield f" name the files {reprlib.repr(named)}; each must be a file of the component, once"
    layers = [name for group in openings.layers.values() for name in group]
    if len(set(layers)) != len(layers) or any(len(name) > _MOST_CHARACTERS for name in layers):
        yield f".layers are {len(layers)}; each once, in {_MOST_CHARACTERS} characters at most, is allowed"
    for group in openings.layers.values():
        for name, shape in group.items():
            if len(shape) not in _DIMENSIONS or not all(1 <= side <= _MOST_LENGTH for side in shape):
                yield f".layers.{reprlib.repr(name)} has the shape {reprlib.repr(shape)}, a weight's is allowed"
    for graph in openings.graphs:
        yield from (f".{graph.file}{fault}" for fault in _graph(graph, openings, entry))
    for pair in openings.cached:
        yield from (f".{pair.whole.file}{fault}" for fault in _graph(pair.whole, openings, entry))
        yield from (f".{pair.shallow.file}{fault}" for fault in _shallow(pair, openings, entry))


def _graph(graph: OpenGraph, openings: Openings, entry: "ComponentEntry") -> Iterator[str]:
    if unknown := sorted(set(graph.groups) - set(openings.layers)):
        yield f".groups are {reprlib.repr(unknown)}, {', '.join(openings.layers)} are allowed"
        return
    yield from activation_faults(".activation", graph.activation)
    pairs = [pair_inputs(name, shape) for name, shape in openings.shapes(graph.groups).items()]
    names = [tensor.name for tensor in (*entry.spec.inputs, *(t for pair in pairs for t in pair), *graph.inputs)]
    if len(set(names)) != len(names) or any(len(name) > _MOST_CHARACTERS for name in names):
        yield f" has {len(names)} inputs; each once, in {_MOST_CHARACTERS} characters at most, is allowed"
    for tensor in graph.inputs:
        if not _sound(tensor):
            yield f".inputs has {reprlib.repr(tensor)}, {FLOAT} or {INT} in lengths to {_MOST_LENGTH} is allowed"


def _shallow(pair: CachedGraphs, openings: Openings, entry: "ComponentEntry") -> Iterator[str]:
    graph, shapes = pair.shallow, openings.shapes(tuple(openings.layers))
    yield from activation_faults(".activation", graph.activation)
    own = {tensor.name for tensor in entry.spec.inputs}
    if unknown := sorted((set(graph.own) - own) | (set(graph.layers) - set(shapes))):
        yield f" takes {reprlib.repr(unknown)}, inputs and layers of the component are allowed"
        return
    pairs = [tensor.name for name in graph.layers for tensor in pair_inputs(name, shapes[name])]
    names = [*graph.own, *pairs, *(tensor.name for tensor in graph.inputs), pair.feature.name]
    given = {tensor.name for tensor in (*entry.spec.inputs, *entry.spec.outputs, *pair.whole.inputs)}
    if len(set(names)) != len(names) or pair.feature.name in given:
        yield f" has {len(names)} inputs; each once, and a feature of another name, are allowed"
    if odd := [tensor for tensor in (pair.feature, *graph.inputs) if not _sound(tensor)]:
        yield f".inputs has {reprlib.repr(odd[0])}, {FLOAT} or {INT} in lengths to {_MOST_LENGTH} is allowed"
    if not 0 < graph.weight_bytes <= entry.weight_bytes:
        yield f".weight_bytes is {graph.weight_bytes}, 1 to the component's {entry.weight_bytes} is allowed"


def _sound(tensor: TensorSpec) -> bool:
    fits = all(not isinstance(side, int) or 0 <= side <= _MOST_LENGTH for side in tensor.shape)
    return fits and tensor.dtype in (FLOAT, INT) and len(tensor.name) <= _MOST_CHARACTERS
