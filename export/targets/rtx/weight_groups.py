"""4-bit weights under half-precision arithmetic: `DequantizeLinear` with a scale for a block of inputs → the layer.

TensorRT for RTX dequantizes a matrix inside its product, from Ampere on, if scales are halves; behind scales in float32
it writes the whole weight as halves before every call, as it does for a convolution in any case. It has no zero points
of 4 bits. Where blocks do not divide a weight's width the last one is filled up with zeros, which are cut off again;
then a kernel writes halves (no layer of SDXL's own sizes).
"""

import numpy as np
import onnx_ir as ir

from ...graph.layers import Layer, add_initializer, layers_in, replace_layer
from ...graph.stored_weight import Array, StoredWeight
from ...quantize.formats import W4_HALVES, Kind
from ...quantize.quantization import Quantization
from ...quantize.rounded import MIDDLE


def weight_groups(graph: ir.Graph, quantization: Quantization) -> None:
    """Rewrite every linear layer and convolution of the format `W4_HALVES`."""
    for kind, rewrite in ((Kind.LINEAR, _linear), (Kind.CONV, _conv)):
        for layer in layers_in(graph, kind, W4_HALVES, quantization):
            replace_layer(graph, layer, rewrite(graph, layer, quantization))


def _linear(graph: ir.Graph, layer: Layer, quantization: Quantization) -> list[ir.Node]:
    nodes = _halves(graph, layer, quantization, axis=0)
    product = ir.node("MatMul", [layer.input, nodes[-1].outputs[0]], name=layer.name)
    if layer.bias is None:
        return [*nodes, product]
    return [*nodes, product, ir.node("Add", [product.outputs[0], layer.bias], name=f"{layer.name}/bias")]


def _conv(graph: ir.Graph, layer: Layer, quantization: Quantization) -> list[ir.Node]:
    nodes = _halves(graph, layer, quantization, axis=1)
    shape = _whole_numbers(graph, f"{layer.name}.weight_shape", *(int(side) for side in layer.weight_data().shape))
    kernel = ir.node("Reshape", [nodes[-1].outputs[0], shape], name=f"{layer.name}/kernel")
    inputs = [layer.input, kernel.outputs[0], *([layer.bias] if layer.bias is not None else [])]
    return [*nodes, kernel, ir.node("Conv", inputs, attributes=dict(layer.main.attributes), name=layer.name)]


def _halves(graph: ir.Graph, layer: Layer, quantization: Quantization, *, axis: int) -> list[ir.Node]:
    """The weight as a matrix with its inputs along that axis; the last node gives it."""
    assert W4_HALVES.weight is not None
    weight = StoredWeight.of(layer, W4_HALVES.weight, quantization)
    block = weight.how.group
    assert block is not None
    (out, width), padded = (weight.shape[0], weight.width), weight.groups * block
    nibbles, halves = ir.DataType.INT4, ir.DataType.FLOAT16

    def turned(array: Array) -> Array:
        return np.ascontiguousarray(array.T) if axis == 0 else array

    def data() -> Array:
        steps = weight.rounded().data.astype(np.int8) - np.int8(MIDDLE)
        return turned(np.pad(steps, ((0, 0), (0, padded - width)))).astype(nibbles.numpy())

    def scale() -> Array:
        return turned(weight.rounded().scale.astype(np.float16))

    shapes = [(padded, out), (weight.groups, out)] if axis == 0 else [(out, padded), (out, weight.groups)]
    dequantize = ir.node(
        "DequantizeLinear",
        [
            add_initializer(graph, weight.tensor("int4", nibbles, shapes[0], data)),
            add_initializer(graph, weight.tensor("scale", halves, shapes[1], scale)),
        ],
        attributes={"axis": axis, "block_size": block},
        name=f"{layer.name}/dequantize",
    )
    if padded == width:
        return [dequantize]
    name = f"{layer.name}.weight"
    ends = [_whole_numbers(graph, f"{name}_{end}", at) for end, at in (("start", 0), ("end", width), ("axis", axis))]
    return [dequantize, ir.node("Slice", [dequantize.outputs[0], *ends], name=f"{layer.name}/cut")]


def _whole_numbers(graph: ir.Graph, name: str, *numbers: int) -> ir.Value:
    return add_initializer(graph, ir.Tensor(np.array(numbers, np.int64), name=name))
