"""What `engine.json` says of a component's open graphs must agree with itself and with its files."""

import reprlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..specs import FLOAT, INT
from .activation import activation_faults
from .openings import OpenGraph, Openings, files_of, pair_inputs

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
    named = [*(graph.file for graph in openings.graphs), *([openings.factors] if openings.factors else [])]
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
        if tensor.dtype not in (FLOAT, INT) or any(
            isinstance(d, int) and not 0 <= d <= _MOST_LENGTH for d in tensor.shape
        ):
            yield f".inputs has {reprlib.repr(tensor)}, {FLOAT} or {INT} in lengths to {_MOST_LENGTH} is allowed"
