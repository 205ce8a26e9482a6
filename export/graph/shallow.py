"""A U-Net's outermost level alone, and the whole that gives what the levels below it make.

The feature is what enters the last level of the way up, beside the skip connections of the first: all that the rest of
the network says to the outermost level (DeepCache, Ma et al. 2023, 2312.00858). It is float32 at the edge, as all is.
"""

import re

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ...engine.deep_features import FEATURE
from ...engine.specs import ComponentSpec, TensorSpec
from .layers import find_layers

_LAST_LEVEL = re.compile(r"up_blocks\.(\d+)\.resnets\.0\.conv_shortcut")


def feature_of(graph: ir.Graph) -> TensorSpec | None:
    """The feature of a U-Net's master; None where there is but one level, so that nothing lies below it."""
    join = _join(graph)
    if join is None:
        return None
    below = next(layer for layer in find_layers(graph) if layer.output is join.inputs[0])
    assert below.weight.shape is not None
    return TensorSpec(name=FEATURE, shape=("batch", int(below.weight.shape[0]), "height", "width"))


def give_feature(graph: ir.Graph, feature: TensorSpec) -> None:
    """Let a master (in place; opened or not) give the feature besides its own outputs."""
    join = _join(graph)
    assert join is not None
    value = join.inputs[0]
    assert value is not None
    if value.dtype != ir.DataType.FLOAT:
        value = _cast(graph, join, value, ir.DataType.FLOAT)
    value.name, value.shape = feature.name, ir.Shape(feature.shape)
    graph.outputs.append(value)


def cut(model: ir.Model, spec: ComponentSpec, feature: TensorSpec) -> ComponentSpec:
    """Leave of a master (in place, before it is opened) the outermost level; what that takes and gives."""
    graph = model.graph
    join = _join(graph)
    assert join is not None
    below = join.inputs[0]
    assert below is not None
    given = ir.Value(name=feature.name, shape=ir.Shape(feature.shape), type=ir.TensorType(ir.DataType.FLOAT))
    graph.inputs.append(given)
    assert below.dtype is not None
    join.replace_input_with(0, given if below.dtype == given.dtype else _cast(graph, join, given, below.dtype))
    RemoveUnusedNodesPass()(model)
    for value in [value for value in graph.inputs if not value.uses()]:
        graph.inputs.remove(value)
    left = {value.name for value in graph.inputs}
    own = tuple(tensor for tensor in spec.inputs if tensor.name in left)
    return ComponentSpec(role=spec.role, inputs=(*own, feature), outputs=spec.outputs)


def _cast(graph: ir.Graph, before: ir.Node, value: ir.Value, dtype: ir.DataType) -> ir.Value:
    cast = ir.node("Cast", [value], attributes={"to": dtype}, name=f"{FEATURE}/cast")
    cast.outputs[0].shape, cast.outputs[0].type = value.shape, ir.TensorType(dtype)
    graph.insert_before(before, [cast])
    return cast.outputs[0]


def _join(graph: ir.Graph) -> ir.Node | None:
    """Where the last level of the way up begins: it joins what comes from below with a skip connection.

    The ResNet behind it takes more channels than it gives, so that it has a shortcut, which reads the same.
    """
    found = {
        int(match[1]): layer.input.producer()
        for layer in find_layers(graph)
        if (match := _LAST_LEVEL.fullmatch(layer.name))
    }
    return found[max(found)] if len(found) > 1 else None
