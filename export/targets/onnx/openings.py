"""Open graphs of a component beside its plain one: lowered alike, over the file of weights that the plain one has."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ....engine.errors import StorageError
from ....engine.folder.activation import ActivationModel
from ....engine.folder.openings import CachedGraphs, OpenGraph, Openings, ShallowGraph
from ....engine.runners.ort import MODEL_FILE
from ...graph.memo import Memo
from ...graph.openings import CACHED, ROWS, groups_of, open_graph, places
from ...graph.weightless import Weightless

if TYPE_CHECKING:
    import onnx_ir as ir

    from ....engine.specs import ComponentSpec

_RANK = 32
"""At which working memory is told; what a pair makes between its two products is small beside what it adds to."""
_OWN_BYTES = 1 << 16
"""The most that one constant of an open graph has which the plain graph lacks."""
_DESCRIBED: Memo[Openings | None] = Memo(16)
"""Describing takes a quarter of a small network's build: every open graph is measured at a dozen sizes."""


def describe_openings(
    component: str, model: "ir.Model", spec: "ComponentSpec", scratch: Mapping[str, float]
) -> Openings | None:
    """What a component's open graphs will be, of its master without weights, which is left as it is."""
    structure = Weightless(component, model).digest
    rows = ROWS.get(spec.role, ()), CACHED.get(spec.role, ())
    key = (component, structure, spec, rows, tuple(sorted(scratch.items())))
    return _DESCRIBED.get(key, lambda: _describe(component, model, spec, scratch))


def _describe(
    component: str, model: "ir.Model", spec: "ComponentSpec", scratch: Mapping[str, float]
) -> Openings | None:
    """See `describe_openings`."""

    def working(draft: "ir.Model", own: "ComponentSpec") -> ActivationModel:
        return _activation(component, draft, own, scratch)

    graphs = []
    for row in ROWS.get(spec.role, ()):
        draft = model.clone()
        inputs = open_graph(draft.graph, spec, row, guarded=False)
        graphs.append(OpenGraph(file=row.file, groups=row.groups, inputs=inputs, activation=working(draft, spec)))
    if not graphs:
        return None
    cached = tuple(_describe_cached(model, spec, working))
    return Openings(layers=groups_of(model.graph), factors="", graphs=tuple(graphs), cached=cached)


def opened(model: "ir.Model", spec: "ComponentSpec") -> "dict[str, ir.Model]":
    """File → the master opened for that row, its weights attached as they are in it; it is left as it is."""
    from ...graph.shallow import cut, feature_of, give_feature

    found = {}
    for row in ROWS.get(spec.role, ()):
        found[row.file] = model.clone()
        open_graph(found[row.file].graph, spec, row)
    feature = feature_of(model.graph)
    for pair in CACHED.get(spec.role, ()) if feature is not None else ():
        assert feature is not None
        whole, shallow = model.clone(), model.clone()
        open_graph(whole.graph, spec, pair.whole)
        give_feature(whole.graph, feature)
        open_graph(shallow.graph, cut(shallow, spec, feature), pair.shallow)
        found |= {pair.whole.file: whole, pair.shallow.file: shallow}
    return found


def save_opened(models: "Mapping[str, ir.Model]", out: Path) -> dict[str, int]:
    """Write open graphs, lowered by the passes that the plain one went through, beside it in `out`.

    Their weights are those of the plain graph's file, found by name: nothing is read or rounded again. File → bytes of
    those weights. Raises `StorageError`.
    """
    import onnx
    import onnx_ir as ir

    plain = onnx.load(out / MODEL_FILE, load_external_data=False)
    stored = {tensor.name: ir.serde.deserialize_tensor(tensor, out) for tensor in plain.graph.initializer}
    sizes = {}
    for file, model in models.items():
        for name, value in model.graph.initializers.items():
            tensor = stored.get(name, value.const_value)
            assert tensor is not None, f"{name} has no numbers"
            assert name in stored or tensor.nbytes <= _OWN_BYTES, f"{file} has weights that {MODEL_FILE} lacks: {name}"
            value.const_value = tensor if name in stored else ir.Tensor(np.asarray(tensor.numpy()), name=name)
        sizes[file] = sum(stored[name].nbytes for name in model.graph.initializers if name in stored)
        try:
            ir.save(model, out / file)
        except OSError as error:
            raise StorageError(
                f"cannot write {out / file}: {error.strerror or error}; free some space or choose another folder"
            ) from error
    return sizes


def weighed(openings: Openings, sizes: Mapping[str, int]) -> Openings:
    """What was described, with what `save_opened` has told."""
    cached = (
        replace(pair, shallow=replace(pair.shallow, weight_bytes=sizes[pair.shallow.file])) for pair in openings.cached
    )
    return replace(openings, cached=tuple(cached))


def _describe_cached(
    model: "ir.Model", spec: "ComponentSpec", working: Callable[["ir.Model", "ComponentSpec"], ActivationModel]
) -> Iterator[CachedGraphs]:
    """The graphs that keep deep features; their weights are not known yet."""
    from ...graph.shallow import cut, feature_of, give_feature

    feature = feature_of(model.graph)
    if feature is None:
        return
    for pair in CACHED.get(spec.role, ()):
        draft = model.clone()
        inputs = open_graph(draft.graph, spec, pair.whole, guarded=False)
        give_feature(draft.graph, feature)
        activation = working(draft, replace(spec, outputs=(*spec.outputs, feature)))
        whole = OpenGraph(file=pair.whole.file, groups=pair.whole.groups, inputs=inputs, activation=activation)
        draft = model.clone()
        outermost = cut(draft, spec, feature)
        layers = tuple(place.name for place in places(draft.graph) if place.group in pair.shallow.groups)
        inputs = open_graph(draft.graph, outermost, pair.shallow, guarded=False)
        shallow = ShallowGraph(
            file=pair.shallow.file,
            own=tuple(tensor.name for tensor in outermost.inputs if tensor != feature),
            layers=layers,
            inputs=inputs,
            activation=working(draft, outermost),
            weight_bytes=0,
        )
        yield CachedGraphs(feature=feature, whole=whole, shallow=shallow)


def _activation(
    component: str, draft: "ir.Model", spec: "ComponentSpec", scratch: Mapping[str, float]
) -> ActivationModel:
    """Working memory of an opened master."""
    from ...graph.activations import Outline

    lengths = [
        str(side.value) for value in draft.graph.inputs for side in value.shape or () if not isinstance(side, int)
    ]
    # What is added as it is takes no working memory of its own: a single number is spread.
    known = {name: _RANK if name.startswith("rank.") else 1 for name in lengths if name not in spec.symbols()}
    return Outline.of(component, draft, spec, scratch, known=known).whole()
