"""Linear layers in int8 with activations quantized by their own range at every call.

A layer alone becomes one `DynamicQuantizeMatMul`; layers that read the same activation (query, key and value; both
halves of a gated projection) share one `DynamicQuantizeLinear` and become `MatMulIntegerToFloat`.
"""

import math

import onnx_ir as ir

from ...graph.layers import MICROSOFT, Layer, add_initializer, layers_in, replace_layer
from ...graph.patch_conv import PATCH_CONV
from ...graph.stored_weight import StoredWeight
from ...quantize.formats import W8A8_DYNAMIC, Kind
from ...quantize.quantization import Quantization


def linear_int8(graph: ir.Graph, quantization: Quantization) -> None:
    """Rewrite every linear layer of the format `w8a8_dynamic`."""
    sharing: dict[ir.Value, list[Layer]] = {}
    for layer in layers_in(graph, Kind.LINEAR, W8A8_DYNAMIC, quantization):
        sharing.setdefault(layer.input, []).append(layer)
    for activation, layers in sharing.items():
        if len(layers) == 1:
            replace_layer(graph, layers[0], [_alone(graph, layers[0], quantization)])
            continue
        quantize = ir.node(
            "DynamicQuantizeLinear", [activation], num_outputs=3, name=f"{layers[0].name}/quantize_input"
        )
        graph.insert_before(layers[0].nodes[0], quantize)
        for layer in layers:
            replace_layer(graph, layer, [_shared(graph, layer, quantize, quantization)])


_WEIGHT_AT = {"DynamicQuantizeMatMul": (1,), "MatMulIntegerToFloat": (1,), "QLinearConv": (3,), PATCH_CONV: (3, 6)}


def int8_bytes(graph: ir.Graph) -> int:
    """Bytes of all int8 weights that integer products take, convolutions' too.

    Those of `MatMulNBits` are not among them: its numbers are unsigned, and no processor needs other ones.
    """
    found = 0
    for node in graph:
        for at in _WEIGHT_AT.get(node.op_type, ()):
            weight = node.inputs[at] if at < len(node.inputs) else None
            if weight is not None and weight.shape is not None:
                found += math.prod(int(side) for side in weight.shape)
    return found


def _alone(graph: ir.Graph, layer: Layer, quantization: Quantization) -> ir.Node:
    data, scale = _weight(graph, layer, quantization)
    return ir.node(
        "DynamicQuantizeMatMul",
        [layer.input, data, scale, None, layer.bias],
        domain=MICROSOFT,
        name=layer.name,
    )


def _shared(graph: ir.Graph, layer: Layer, quantize: ir.Node, quantization: Quantization) -> ir.Node:
    data, scale = _weight(graph, layer, quantization)
    values, input_scale, zero_point = quantize.outputs
    return ir.node(
        "MatMulIntegerToFloat",
        [values, data, input_scale, scale, zero_point, None, layer.bias],
        domain=MICROSOFT,
        name=layer.name,
    )


def _weight(graph: ir.Graph, layer: Layer, quantization: Quantization) -> tuple[ir.Value, ir.Value]:
    assert W8A8_DYNAMIC.weight is not None
    weight = StoredWeight.of(layer, W8A8_DYNAMIC.weight, quantization)
    return add_initializer(graph, weight.int8(transposed=True)), add_initializer(graph, weight.scale())
