"""int8 weights under float arithmetic: the weight is dequantized when its layer runs, one layer at a time.

A linear layer becomes `DequantizeLinear` → `FusedMatMul(transB)`. Plain `DequantizeLinear` → `MatMul` is avoided on
purpose: ONNX Runtime turns it into `MatMulNBits`, which also quantizes the activations (twice the speed, but no longer
weight-only).
"""

import math

import onnx_ir as ir

from ....engine.specs import Role
from ...graph.layers import MICROSOFT, Layer, add_initializer, layers_in, replace_layer
from ...quantize.formats import W8, Kind
from ...quantize.int8 import Int8Weight
from ...quantize.recipes import Recipe


def weight_only(graph: ir.Graph, recipe: Recipe, role: Role) -> None:
    """Rewrite every layer that the recipe wants as `w8`."""
    for kind, rewrite in ((Kind.LINEAR, _linear), (Kind.CONV, _conv), (Kind.EMBEDDING, _embedding)):
        for layer in layers_in(graph, kind, W8, recipe, role):
            replace_layer(graph, layer, rewrite(graph, layer))


def dequantized_bytes(graph: ir.Graph) -> int:
    """Bytes of all weights that `DequantizeLinear` makes floats of, together."""
    found = 0
    for node in graph:
        weight = node.inputs[0] if node.op_type == "DequantizeLinear" else None
        if weight is not None and weight.is_initializer() and weight.shape is not None:
            found += 4 * math.prod(int(length) for length in weight.shape)
    return found


def _linear(graph: ir.Graph, layer: Layer) -> list[ir.Node]:
    dequantize = _dequantize(graph, layer)
    product = ir.node(
        "FusedMatMul",
        [layer.input, dequantize.outputs[0]],
        attributes={"transB": 1},
        domain=MICROSOFT,
        name=layer.name,
    )
    if layer.bias is None:
        return [dequantize, product]
    return [dequantize, product, ir.node("Add", [product.outputs[0], layer.bias], name=f"{layer.name}/bias")]


def _conv(graph: ir.Graph, layer: Layer) -> list[ir.Node]:
    dequantize = _dequantize(graph, layer)
    inputs = [layer.input, dequantize.outputs[0], *([layer.bias] if layer.bias is not None else [])]
    return [dequantize, ir.node("Conv", inputs, attributes=dict(layer.main.attributes), name=layer.name)]


def _embedding(graph: ir.Graph, layer: Layer) -> list[ir.Node]:
    """Gather int8 rows and their scales: the table is never dequantized as a whole."""
    weight = Int8Weight(source=layer.weight_data())
    data = add_initializer(graph, weight.data_tensor(f"{layer.name}.weight_int8"))
    scale = add_initializer(graph, weight.scale_tensor(f"{layer.name}.weight_scale"))
    last_axis = add_initializer(graph, ir.tensor([-1], dtype=ir.DataType.INT64, name="axis_last"))
    rows = ir.node("Gather", [data, layer.input], attributes={"axis": 0}, name=f"{layer.name}/rows")
    floats = ir.node("Cast", [rows.outputs[0]], attributes={"to": ir.DataType.FLOAT}, name=f"{layer.name}/float")
    scales = ir.node("Gather", [scale, layer.input], attributes={"axis": 0}, name=f"{layer.name}/scales")
    column = ir.node("Unsqueeze", [scales.outputs[0], last_axis], name=f"{layer.name}/column")
    return [rows, floats, scales, column, ir.node("Mul", [floats.outputs[0], column.outputs[0]], name=layer.name)]


def _dequantize(graph: ir.Graph, layer: Layer) -> ir.Node:
    weight = Int8Weight(source=layer.weight_data())
    data = add_initializer(graph, weight.data_tensor(f"{layer.name}.weight_int8"))
    scale = add_initializer(graph, weight.scale_tensor(f"{layer.name}.weight_scale"))
    return ir.node("DequantizeLinear", [data, scale], attributes={"axis": 0}, name=f"{layer.name}/dequantize")
