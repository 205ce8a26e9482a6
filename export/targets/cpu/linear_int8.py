"""Linear layers in int8 with activations quantized by their own range at every call.

A layer alone becomes one `DynamicQuantizeMatMul`; layers that read the same activation (query, key and value; both
halves of a gated projection) share one `DynamicQuantizeLinear` and become `MatMulIntegerToFloat`.
"""

import math

import onnx_ir as ir

from ....engine.specs import Role
from ...graph.layers import MICROSOFT, Layer, add_initializer, layers_in, replace_layer
from ...quantize.formats import W8A8_DYNAMIC, Kind
from ...quantize.int8 import Int8Weight
from ...quantize.recipes import Recipe


def linear_int8(graph: ir.Graph, recipe: Recipe, role: Role) -> None:
    """Rewrite every linear layer that the recipe wants as `w8a8_dynamic`."""
    sharing: dict[ir.Value, list[Layer]] = {}
    for layer in layers_in(graph, Kind.LINEAR, W8A8_DYNAMIC, recipe, role):
        sharing.setdefault(layer.input, []).append(layer)
    for activation, layers in sharing.items():
        if len(layers) == 1:
            replace_layer(graph, layers[0], [_alone(graph, layers[0])])
            continue
        quantize = ir.node(
            "DynamicQuantizeLinear", [activation], num_outputs=3, name=f"{layers[0].name}/quantize_input"
        )
        graph.insert_before(layers[0].nodes[0], quantize)
        for layer in layers:
            replace_layer(graph, layer, [_shared(graph, layer, quantize)])


_WEIGHT_AT = {"DynamicQuantizeMatMul": 1, "MatMulIntegerToFloat": 1, "QLinearConv": 3}


def int8_bytes(graph: ir.Graph) -> int:
    """Bytes of all weights that integer products take, convolutions' too."""
    found = 0
    for node in graph:
        weight = node.inputs[_WEIGHT_AT[node.op_type]] if node.op_type in _WEIGHT_AT else None
        if weight is not None and weight.shape is not None:
            found += math.prod(int(side) for side in weight.shape)
    return found


def _alone(graph: ir.Graph, layer: Layer) -> ir.Node:
    data, scale = _weight(graph, layer)
    return ir.node(
        "DynamicQuantizeMatMul",
        [layer.input, data, scale, None, layer.bias],
        domain=MICROSOFT,
        name=layer.name,
    )


def _shared(graph: ir.Graph, layer: Layer, quantize: ir.Node) -> ir.Node:
    data, scale = _weight(graph, layer)
    values, input_scale, zero_point = quantize.outputs
    return ir.node(
        "MatMulIntegerToFloat",
        [values, data, input_scale, scale, zero_point, None, layer.bias],
        domain=MICROSOFT,
        name=layer.name,
    )


def _weight(graph: ir.Graph, layer: Layer) -> tuple[ir.Value, ir.Value]:
    weight = Int8Weight(source=layer.weight_data())
    data = add_initializer(graph, weight.data_tensor(f"{layer.name}.weight_int8", transposed=True))
    return data, add_initializer(graph, weight.scale_tensor(f"{layer.name}.weight_scale"))
