"""The arithmetic of our kernels in plain ONNX, so that a machine without a GPU can hold a component to its reference.

Inputs are rounded to 8 bits and back as the kernels do it: by the largest magnitude of a row, or of a picture, over
127. Weights are stored in 8 bits and multiplied as floats, which is what exact sums of 8-bit products give. Two
pictures side by side, which have a scale each in the kernel, share one here: what is measured is the worse of the two.
"""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from ...graph.layers import Layer, add_initializer, layers_in, replace_layer
from ...graph.stored_weight import StoredWeight
from ...quantize.formats import W4_HALVES, W4A8_TOKEN, W8, W8A8_PICTURE, W8A8_TOKEN, Format, Kind
from ...quantize.quantization import Quantization
from ...quantize.rounded import MIDDLE

STEPS = 127
LEAST = 1e-30
"""What a row of zeros is scaled by, as in the kernels; 0 would divide to NaN."""

_AXES: Mapping[Format, tuple[int, ...]] = {W8A8_TOKEN: (-1,), W4A8_TOKEN: (-1,), W8A8_PICTURE: (1, 2, 3)}
"""Of an input, those that share a scale."""


def stand_in(graph: ir.Graph, quantization: Quantization) -> None:
    """Rewrite every layer with weights of 4 or 8 bits; readers of one input share its numbers."""
    rounded: dict[tuple[ir.Value, tuple[int, ...]], ir.Value] = {}

    def taken(layer: Layer, format: Format) -> ir.Value:
        key = layer.input, _AXES.get(format, ())
        if key not in rounded:
            rounded[key] = _rounded(graph, layer, key[1]) if key[1] else layer.input
        return rounded[key]

    for kind in (Kind.LINEAR, Kind.CONV):
        for format in (W8A8_TOKEN, W8A8_PICTURE, W8):
            for layer in layers_in(graph, kind, format, quantization):
                replace_layer(graph, layer, _product(graph, layer, taken(layer, format), quantization))
        for format in (W4_HALVES, W4A8_TOKEN):
            for layer in layers_in(graph, kind, format, quantization):
                layer.main.replace_input_with(0, taken(layer, format))
                _four_bits(layer, quantization)


def _rounded(graph: ir.Graph, layer: Layer, axes: tuple[int, ...]) -> ir.Value:
    """The input after rounding, in its own type; the arithmetic is float32."""
    name, dtype = f"{layer.name}/input", layer.input.dtype
    along = _constant(graph, f"axes{axes}", np.array(axes, np.int64))
    nodes: list[ir.Node] = []

    def node(op: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        made = ir.node(op, list(inputs), attributes=attributes, name=f"{name}_{op.lower()}{len(nodes)}")
        nodes.append(made)
        return made.outputs[0]

    wide = node("Cast", layer.input, to=ir.DataType.FLOAT)
    largest = node("ReduceMax", node("Abs", wide), along, keepdims=1)
    scale = node("Mul", node("Max", largest, _constant(graph, "least", LEAST)), _constant(graph, "step", 1 / STEPS))
    steps = node("Round", node("Div", wide, scale))
    result = node("Cast", node("Mul", steps, scale), to=dtype)
    graph.insert_before(layer.nodes[0], nodes)
    return result


def _product(graph: ir.Graph, layer: Layer, x: ir.Value, quantization: Quantization) -> list[ir.Node]:
    linear = layer.kind is Kind.LINEAR
    assert W8.weight is not None
    weight = StoredWeight.of(layer, W8.weight, quantization)
    data = add_initializer(graph, weight.int8(transposed=linear))
    scale = add_initializer(graph, weight.scale())
    axis = {"axis": 1 if linear else 0}
    dequantize = ir.node("DequantizeLinear", [data, scale], attributes=axis, name=f"{layer.name}/dequantize")
    to = {"to": layer.input.dtype}
    cast = ir.node("Cast", [dequantize.outputs[0]], attributes=to, name=f"{layer.name}/cast")
    floats = cast.outputs[0]
    if not linear:
        inputs = [x, floats, *([layer.bias] if layer.bias is not None else [])]
        return [dequantize, cast, ir.node("Conv", inputs, attributes=dict(layer.main.attributes), name=layer.name)]
    product = ir.node("MatMul", [x, floats], name=layer.name)
    if layer.bias is None:
        return [dequantize, cast, product]
    return [dequantize, cast, product, ir.node("Add", [product.outputs[0], layer.bias], name=f"{layer.name}/bias")]


def _four_bits(layer: Layer, quantization: Quantization) -> None:
    """The layer's weight becomes what 4 bits leave of it, in its own type: groups along taps are not ONNX's."""
    source, inputs = layer.weight_data(), quantization.sampled(layer.name)
    dtype, shape = source.dtype, source.shape

    def compute() -> ir.Tensor:
        import torch

        from .stored import four_bits

        numbers, scale = four_bits(torch.from_numpy(np.asarray(source.numpy(), np.float32)), inputs)
        groups = (numbers.float() - MIDDLE).view(*scale.shape, -1) * scale[..., None]
        back = groups.view(numbers.shape).permute(0, -1, *range(1, numbers.ndim - 1))
        return ir.Tensor(back.contiguous().numpy().astype(dtype.numpy()), name=layer.weight.name)

    layer.weight.const_value = ir.LazyTensor(compute, dtype=dtype, shape=shape, name=layer.weight.name)


def _constant(graph: ir.Graph, name: str, value: float | np.ndarray) -> ir.Value:
    array = value if isinstance(value, np.ndarray) else np.float32(value)
    return add_initializer(graph, ir.Tensor(np.asarray(array), name=f"stand_in.{name}"))
