"""The ONNX master of a component → its steps; tests hold them to the architecture and to the module's numbers.

Nodes are walked once, each by the rule of its operator: views only change what a value means (`views`), layers become
steps (`layers`), and what follows a layer becomes part of its step (`sums`). The forms are those that
`export/graph/operators.py` writes; a node in any other form is refused, by its name.
"""

from collections.abc import Callable, Mapping
from typing import Final

import onnx_ir as ir

from ....engine.errors import IncompatibleError
from . import layers, sums, texts, vectors, views
from .meanings import Columns, Meaning, Rows
from .steps import Steps
from .walk import Walk

Rule = Callable[[Walk, ir.Node], Meaning | tuple[Meaning, ...]]

RULES: Final[Mapping[str, Rule]] = {
    "Add": sums.add,
    "ArgMax": texts.argmax,
    "Attention": layers.attention,
    "Cast": views.cast,
    "Concat": views.concat,
    "Conv": layers.conv,
    "Cos": vectors.wave,
    "Equal": texts.equal,
    "Gather": texts.gather,
    "GatherND": texts.gather_rows,
    "Gelu": sums.gelu,
    "InstanceNormalization": layers.instance_normalization,
    "LayerNormalization": layers.layer_normalization,
    "MatMul": layers.matmul,
    "Mul": sums.multiply,
    "Reshape": views.reshape,
    "Resize": views.resize,
    "Shape": views.shape,
    "Sigmoid": sums.sigmoid,
    "Sin": vectors.wave,
    "Split": views.split,
    "Transpose": views.transpose,
    "Unsqueeze": views.unsqueeze,
}


def steps_of(model: ir.Model) -> Steps:
    """What the component computes, step by step; weights need not be attached.

    `model`: from `graph.master.export_master`, in any dtype. Text encoders, conditioners, U-Nets and VAE decoders lower
    whole. Raises `IncompatibleError`, which names the node, for one that is no part of a step.
    """
    walk = Walk(model.graph)
    for node in model.graph:
        rule = RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if rule is None:
            raise walk.refusal(node)
        meanings = rule(walk, node)
        walk.learn(node, meanings if isinstance(meanings, tuple) else (meanings,))
    outputs = {value.name or "": _output(walk, value) for value in model.graph.outputs}
    ends = {name: parts[0].end for name, parts in outputs.items() if parts[0].end is not None}
    return Steps(
        steps=tuple(walk.steps.values()),
        outputs={name: tuple(rows.name for rows in parts) for name, parts in outputs.items()},
        ends=frozenset(ends),
        words=texts.ending(walk, ends.values()),
        vectors=walk.vectors,
    )


def _output(walk: Walk, value: ir.Value) -> tuple[Rows, ...]:
    found = walk.meaning(value)
    parts = found.parts if isinstance(found, Columns) else (found,)
    rows = tuple(one for one in parts if isinstance(one, Rows) and one.name in walk.steps and one.plain)
    if len(rows) < len(parts):
        raise IncompatibleError(
            f"no step of the cuda target makes the output '{value.name}'; build this component for another target"
        )
    return rows
