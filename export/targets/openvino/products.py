"""Products of int8 with int8 as OpenVINO makes them of ONNX: both factors rounded, a scale for each output channel.

Its low-precision transformations take the two `DequantizeLinear`s behind the product, where bias, residual and what
follows join it in one kernel (read from compiled models: `FullyConnected` and `Convolution` of type `i8`, with AMX
`brgemm_avx512_amx_i8`).
"""

from typing import Final

import onnx_ir as ir

from ...graph.layers import Layer, add_initializer, replace_layer
from ...graph.stored_weight import StoredWeight
from ...quantize.formats import Kind
from ...quantize.quantization import Quantization
from ..onnx.signed_inputs import Numbers, SignedInput, signed_inputs

INT8: Final = Numbers(name="int8", kind="int", dtype=ir.DataType.INT8)


def products(graph: ir.Graph, quantization: Quantization) -> None:
    """Rewrite every layer whose input is int8; `ValueError` for one without its scales."""
    for layer, taken in signed_inputs(graph, quantization, INT8, ir.DataType.FLOAT):
        replace_layer(graph, layer, _product(graph, layer, taken, quantization))


def _product(graph: ir.Graph, layer: Layer, taken: SignedInput, quantization: Quantization) -> list[ir.Node]:
    how = quantization.format(layer.kind, layer.name).weight
    assert how is not None
    weight, linear = StoredWeight.of(layer, how, quantization, taken.factors), layer.kind is Kind.LINEAR
    stored = [add_initializer(graph, weight.int8(transposed=linear)), add_initializer(graph, weight.scale())]
    floats = ir.node("DequantizeLinear", stored, attributes={"axis": int(linear)}, name=f"{layer.name}/dequantize")
    inputs = [taken.value, floats.outputs[0]]
    if not linear:
        inputs += [] if layer.bias is None else [layer.bias]
        return [floats, ir.node("Conv", inputs, attributes=dict(layer.main.attributes), name=layer.name)]
    product = ir.node("MatMul", inputs, name=layer.name)
    if layer.bias is None:
        return [floats, product]
    return [floats, product, ir.node("Add", [product.outputs[0], layer.bias], name=f"{layer.name}/bias")]
