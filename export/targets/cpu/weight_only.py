"""int8 weights under float arithmetic: the weight is dequantized when its layer runs, one layer at a time.

A linear layer becomes `DequantizeLinear` → `FusedMatMul(transB)`. Plain `DequantizeLinear` → `MatMul` is avoided on
purpose: ONNX Runtime turns it into `MatMulNBits`, which also quantizes the activations (twice the speed, but no longer
weight-only).
"""

import onnx_ir as ir

from ...graph.layers import MICROSOFT, Layer, add_initializer, layers_in, replace_layer
from ...graph.stored_weight import StoredWeight
from ...quantize.formats import W8, Kind
from ...quantize.quantization import Quantization

PART, NARROW, ALIGNED = 128, 64, 16
"""Of ONNX Runtime's float products; threads share columns in blocks of `ALIGNED`."""


def weight_only(graph: ir.Graph, quantization: Quantization) -> None:
    """Rewrite every layer of the format `w8`."""
    for kind, rewrite in ((Kind.LINEAR, _linear), (Kind.CONV, _conv), (Kind.EMBEDDING, _embedding)):
        for layer in layers_in(graph, kind, W8, quantization):
            replace_layer(graph, layer, rewrite(graph, layer, quantization))


def exact_threads(graph: ir.Graph) -> int | None:
    """The most threads with which products with dequantized weights come out as with one; None: there are none.

    ONNX Runtime gives each thread some columns of such a product. It adds up a row's products in parts of `PART`, but
    where a thread has `NARROW` columns or fewer in larger parts, which rounds otherwise. Weights that are constants are
    packed beforehand and added up in one way always. (MLAS, `MlasSgemmOperation`; measured from 1 to 16 threads.)
    `MatMulNBits` gives the same for any number of threads, at every accuracy level that we use (measured likewise).
    Convolutions share pixels in the same way, which their weights do not tell: the miniature's VAE needs 256 × 256 for
    eight threads, 512 × 512 for sixteen.
    """
    most = None
    for node in graph:
        weight = node.inputs[1].producer() if node.op_type == "FusedMatMul" and node.inputs[1] is not None else None
        data = weight.inputs[0] if weight is not None and weight.op_type == "DequantizeLinear" else None
        if data is None or data.shape is None:
            continue
        columns, length = (int(side) for side in data.shape)
        if length > PART:
            share = max(1, columns // (NARROW + ALIGNED))
            most = share if most is None else min(most, share)
    return most


def _linear(graph: ir.Graph, layer: Layer, quantization: Quantization) -> list[ir.Node]:
    dequantize = _dequantize(graph, layer, quantization)
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


def _conv(graph: ir.Graph, layer: Layer, quantization: Quantization) -> list[ir.Node]:
    dequantize = _dequantize(graph, layer, quantization)
    inputs = [layer.input, dequantize.outputs[0], *([layer.bias] if layer.bias is not None else [])]
    return [dequantize, ir.node("Conv", inputs, attributes=dict(layer.main.attributes), name=layer.name)]


def _embedding(graph: ir.Graph, layer: Layer, quantization: Quantization) -> list[ir.Node]:
    """Gather int8 rows and their scales: the table is never dequantized as a whole."""
    weight = _stored(layer, quantization)
    data = add_initializer(graph, weight.int8())
    scale = add_initializer(graph, weight.scale())
    last_axis = add_initializer(graph, ir.tensor([-1], dtype=ir.DataType.INT64, name="axis_last"))
    rows = ir.node("Gather", [data, layer.input], attributes={"axis": 0}, name=f"{layer.name}/rows")
    floats = ir.node("Cast", [rows.outputs[0]], attributes={"to": ir.DataType.FLOAT}, name=f"{layer.name}/float")
    scales = ir.node("Gather", [scale, layer.input], attributes={"axis": 0}, name=f"{layer.name}/scales")
    column = ir.node("Unsqueeze", [scales.outputs[0], last_axis], name=f"{layer.name}/column")
    return [rows, floats, scales, column, ir.node("Mul", [floats.outputs[0], column.outputs[0]], name=layer.name)]


def _dequantize(graph: ir.Graph, layer: Layer, quantization: Quantization) -> ir.Node:
    weight = _stored(layer, quantization)
    data = add_initializer(graph, weight.int8())
    scale = add_initializer(graph, weight.scale())
    zero = add_initializer(graph, weight.no_zero_points())
    return ir.node("DequantizeLinear", [data, scale, zero], attributes={"axis": 0}, name=f"{layer.name}/dequantize")


def _stored(layer: Layer, quantization: Quantization) -> StoredWeight:
    assert W8.weight is not None
    return StoredWeight.of(layer, W8.weight, quantization)
