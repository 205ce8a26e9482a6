"""Open graphs of a component beside its plain one: lowered alike, over the file of weights that the plain one has."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ....engine.errors import StorageError
from ....engine.folder.openings import OpenGraph, Openings
from ....engine.runners.ort import MODEL_FILE
from ...graph.openings import ROWS, groups_of, open_graph

if TYPE_CHECKING:
    import onnx_ir as ir

    from ....engine.specs import ComponentSpec

_RANK = 32
"""At which working memory is told; what a pair makes between its two products is small beside what it adds to."""
_OWN_BYTES = 1 << 16
"""The most that one constant of an open graph has which the plain graph lacks."""


def describe_openings(
    component: str, model: "ir.Model", spec: "ComponentSpec", scratch: Mapping[str, float]
) -> Openings | None:
    """What a component's open graphs will be, of its master without weights, which is left as it is."""
    from ...graph.activations import Outline

    graphs = []
    for row in ROWS.get(spec.role, ()):
        draft = model.clone()
        inputs = open_graph(draft.graph, spec, row, guarded=False)
        lengths = [
            str(side.value) for value in draft.graph.inputs for side in value.shape or () if not isinstance(side, int)
        ]
        # What is added as it is takes no working memory of its own: a single number is spread.
        known = {name: _RANK if name.startswith("rank.") else 1 for name in lengths if name not in spec.symbols()}
        activation = Outline.of(component, draft, spec, scratch, known=known).whole()
        graphs.append(OpenGraph(file=row.file, groups=row.groups, inputs=inputs, activation=activation))
    return Openings(layers=groups_of(model.graph), factors="", graphs=tuple(graphs)) if graphs else None


def opened(model: "ir.Model", spec: "ComponentSpec") -> "dict[str, ir.Model]":
    """File → the master opened for that row, its weights attached as they are in it; it is left as it is."""
    found = {}
    for row in ROWS.get(spec.role, ()):
        found[row.file] = model.clone()
        open_graph(found[row.file].graph, spec, row)
    return found


def save_opened(models: "Mapping[str, ir.Model]", out: Path) -> None:
    """Write open graphs, lowered by the passes that the plain one went through, beside it in `out`.

    Their weights are those of the plain graph's file, found by name: nothing is read or rounded again. Raises
    `StorageError`.
    """
    import onnx
    import onnx_ir as ir

    plain = onnx.load(out / MODEL_FILE, load_external_data=False)
    stored = {tensor.name: ir.serde.deserialize_tensor(tensor, out) for tensor in plain.graph.initializer}
    for file, model in models.items():
        for name, value in model.graph.initializers.items():
            tensor = stored.get(name, value.const_value)
            assert tensor is not None, f"{name} has no numbers"
            assert name in stored or tensor.nbytes <= _OWN_BYTES, f"{file} has weights that {MODEL_FILE} lacks: {name}"
            value.const_value = tensor if name in stored else ir.Tensor(np.asarray(tensor.numpy()), name=name)
        try:
            ir.save(model, out / file)
        except OSError as error:
            raise StorageError(
                f"cannot write {out / file}: {error.strerror or error}; free some space or choose another folder"
            ) from error
