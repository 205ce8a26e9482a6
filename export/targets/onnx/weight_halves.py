"""int8 weights under half-precision arithmetic: `DequantizeLinear` in float32 → `Cast` → the layer.

ONNX Runtime writes the weight as halves before every call; its fusions of `DequantizeLinear` and `MatMul`, which round
inputs too, do not see through the `Cast`. TensorRT for RTX dequantizes a matrix inside its product, and writes a
convolution's weight as halves. Scales stay float32: half precision has no numbers below 6e-8, and few bits below 6e-5,
where scales of small channels are. Tables stay halves: the compiler takes int8 constants nowhere but before
`DequantizeLinear`.
"""

import onnx_ir as ir

from ...graph.layers import Layer, add_initializer, layers_in, replace_layer
from ...graph.stored_weight import StoredWeight
from ...quantize.formats import W8, Kind
from ...quantize.quantization import Quantization


def weight_halves(graph: ir.Graph, quantization: Quantization) -> None:
    """Rewrite every linear layer and convolution of the format `w8`."""
    for kind, rewrite in ((Kind.LINEAR, _linear), (Kind.CONV, _conv)):
        for layer in layers_in(graph, kind, W8, quantization):
            replace_layer(graph, layer, rewrite(graph, layer, quantization))


def _linear(graph: ir.Graph, layer: Layer, quantization: Quantization) -> list[ir.Node]:
    dequantized = _halves(graph, layer, quantization, transposed=True)
    product = ir.node("MatMul", [layer.input, dequantized[-1].outputs[0]], name=layer.name)
    if layer.bias is None:
        return [*dequantized, product]
    return [*dequantized, product, ir.node("Add", [product.outputs[0], layer.bias], name=f"{layer.name}/bias")]


def _conv(graph: ir.Graph, layer: Layer, quantization: Quantization) -> list[ir.Node]:
    dequantized = _halves(graph, layer, quantization)
    inputs = [layer.input, dequantized[-1].outputs[0], *([layer.bias] if layer.bias is not None else [])]
    return [*dequantized, ir.node("Conv", inputs, attributes=dict(layer.main.attributes), name=layer.name)]


def _halves(graph: ir.Graph, layer: Layer, quantization: Quantization, *, transposed: bool = False) -> list[ir.Node]:
    assert W8.weight is not None
    weight = StoredWeight.of(layer, W8.weight, quantization)
    data = add_initializer(graph, weight.int8(transposed=transposed))
    scale = add_initializer(graph, weight.scale())
    axis = {"axis": 1 if transposed else 0}
    dequantize = ir.node("DequantizeLinear", [data, scale], attributes=axis, name=f"{layer.name}/dequantize")
    cast = {"to": ir.DataType.FLOAT16}
    return [dequantize, ir.node("Cast", [dequantize.outputs[0]], attributes=cast, name=f"{layer.name}/half")]
