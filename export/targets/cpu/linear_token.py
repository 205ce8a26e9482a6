"""Linear layers in int8 whose inputs have a range for every token.

A token's scale is its largest magnitude over 127, and its numbers are uint8 around 128. `QuantizeLinear` takes scales
of tokens as those of blocks that are as long as a token; the product's rows are multiplied with them. An outlier then
costs its own token only. Against one range for the tensor, which `DynamicQuantizeMatMul` finds inside, SDXL's layers
take up to a third longer on two cores with AMX; with `MatMulNBits`, whose ranges are finer, two to five times as long.
"""

import numpy as np
import onnx_ir as ir

from ...graph.layers import MICROSOFT, Layer, add_initializer, layers_in, replace_layer
from ...graph.stored_weight import StoredWeight
from ...quantize.formats import W8A8_TOKEN, Kind
from ...quantize.quantization import Quantization

STEPS, MIDDLE = 127, 128
SMALLEST_SCALE = 1e-30
"""A token of zeros gets it: 0 would divide to NaN."""


def linear_token(graph: ir.Graph, quantization: Quantization) -> None:
    """Rewrite every linear layer of the format `w8a8` per token; readers of one activation share its numbers."""
    quantized: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}
    for layer in layers_in(graph, Kind.LINEAR, W8A8_TOKEN, quantization):
        if layer.input not in quantized:
            quantized[layer.input] = _quantize(graph, layer)
        replace_layer(graph, layer, _product(graph, layer, *quantized[layer.input], quantization))


def _quantize(graph: ir.Graph, layer: Layer) -> tuple[ir.Value, ir.Value]:
    """uint8 numbers in the activation's shape, and their scales `[..., 1]`."""
    width = int(layer.weight_data().shape[1])
    last = _constant(graph, "axis_last", np.array([-1], np.int64))
    least = _constant(graph, "token.smallest_scale", np.float32(SMALLEST_SCALE))
    share = _constant(graph, "token.step", np.float32(1 / STEPS))
    name = f"{layer.name}/token"
    high = ir.node("ReduceMax", [layer.input, last], attributes={"keepdims": 1}, name=f"{name}_high")
    low = ir.node("ReduceMin", [layer.input, last], attributes={"keepdims": 1}, name=f"{name}_low")
    negated = ir.node("Neg", [low.outputs[0]], name=f"{name}_negated")
    largest = ir.node("Max", [high.outputs[0], negated.outputs[0]], name=f"{name}_largest")
    step = ir.node("Mul", [largest.outputs[0], share], name=f"{name}_step")
    scale = ir.node("Max", [step.outputs[0], least], name=f"{name}_scale")
    shape = ir.node("Shape", [scale.outputs[0]], name=f"{name}_shape")
    zeros = ir.node("Expand", [_middle(graph), shape.outputs[0]], name=f"{name}_zeros")
    quantize = ir.node(
        "QuantizeLinear",
        [layer.input, scale.outputs[0], zeros.outputs[0]],
        attributes={"axis": -1, "block_size": width},
        name=f"{name}_quantize",
    )
    graph.insert_before(layer.nodes[0], [high, low, negated, largest, step, scale, shape, zeros, quantize])
    return quantize.outputs[0], scale.outputs[0]


def _product(
    graph: ir.Graph, layer: Layer, numbers: ir.Value, scale: ir.Value, quantization: Quantization
) -> list[ir.Node]:
    assert W8A8_TOKEN.weight is not None
    weight = StoredWeight.of(layer, W8A8_TOKEN.weight, quantization)
    product = ir.node(
        "MatMulIntegerToFloat",
        [
            numbers,
            add_initializer(graph, weight.int8(transposed=True)),
            _constant(graph, "token.one", np.float32(1)),
            add_initializer(graph, weight.scale()),
            _middle(graph),
        ],
        domain=MICROSOFT,
        name=layer.name,
    )
    scaled = ir.node("Mul", [product.outputs[0], scale], name=f"{layer.name}/scaled")
    if layer.bias is None:
        return [product, scaled]
    return [product, scaled, ir.node("Add", [scaled.outputs[0], layer.bias], name=f"{layer.name}/bias")]


def _middle(graph: ir.Graph) -> ir.Value:
    return _constant(graph, "token.zero_point", np.uint8(MIDDLE))


def _constant(graph: ir.Graph, name: str, value: np.generic | np.ndarray) -> ir.Value:
    return add_initializer(graph, ir.Tensor(np.asarray(value), name=name))
