"""The arithmetic of our kernels in plain ONNX, so that a machine without a GPU can hold a component to its reference.

Inputs are rounded to 8 bits and back as the kernels do it: by the largest magnitude of a row, or of a picture, over
127. Weights are stored in 8 bits and multiplied as floats, which is what exact sums of 8-bit products give. Two
pictures side by side, which have a scale each in the kernel, share one here: what is measured is the worse of the two.
"""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from ...graph.layers import Layer, add_initializer, layers_in, replace_layer
from ...graph.nodes import InGraph
from ...graph.stored_weight import StoredWeight
from ...quantize.formats import W4_HALVES, W4A8_TOKEN, W8, W8A8_PICTURE, W8A8_SIGNED, W8A8_TOKEN, Format, Kind
from ...quantize.quantization import Quantization
from ...quantize.rounded import MIDDLE
from ...quantize.score_blocks import ScoreBlocks
from .rounded import STEPS, cast, number, rounded
from .scores import scores
from .stored import LEAST_STEP

_AXES: Mapping[Format, tuple[int, ...]] = {W8A8_TOKEN: (-1,), W4A8_TOKEN: (-1,), W8A8_PICTURE: (1, 2, 3)}
"""Of an input, those that share a scale."""


def stand_in(graph: ir.Graph, quantization: Quantization) -> None:
    """Rewrite every layer with weights of 4 or 8 bits, and attention; readers of one input share its numbers."""
    made: dict[tuple[ir.Value, tuple[int, ...]], ir.Value] = {}

    def taken(layer: Layer, format: Format) -> ir.Value:
        key = layer.input, _AXES.get(format, ())
        if key not in made:
            made[key] = _rounded(graph, layer, key[1]) if key[1] else layer.input
        return made[key]

    scores(graph, [name for name, own in quantization.attentions.items() if isinstance(own, ScoreBlocks)])
    for layer in layers_in(graph, Kind.LINEAR, W8A8_SIGNED, quantization):
        replace_layer(graph, layer, _static_product(graph, layer, quantization))
    for kind in (Kind.LINEAR, Kind.CONV):
        for format in (W8A8_TOKEN, W8A8_PICTURE, W8):
            for layer in layers_in(graph, kind, format, quantization):
                replace_layer(graph, layer, _product(graph, layer, taken(layer, format), quantization))
        for format in (W4_HALVES, W4A8_TOKEN):
            for layer in layers_in(graph, kind, format, quantization):
                layer.main.replace_input_with(0, taken(layer, format))
                _four_bits(layer, quantization)


def _rounded(graph: ir.Graph, layer: Layer, axes: tuple[int, ...]) -> ir.Value:
    """The input after rounding, in its own type."""
    assert layer.input.dtype is not None
    nodes = InGraph(graph, f"{layer.name}/input")
    made = rounded(nodes, layer.input, axes, layer.input.dtype)
    graph.insert_before(layer.nodes[0], nodes.nodes)
    return made


def _static_product(graph: ir.Graph, layer: Layer, quantization: Quantization) -> list[ir.Node]:
    """The input in steps that are known before, and the weight as it is rounded for these."""
    scale, floats = quantization.input_scale(layer.name), layer.input.dtype
    if scale is None or floats is None:
        raise ValueError(f"{layer.name} has no calibrated scales: observe it before lowering")
    assert W8.weight is not None
    scale = np.maximum(scale.astype(np.float32), np.float32(LEAST_STEP))
    weight = StoredWeight.of(layer, W8.weight, quantization, input_scale=scale)
    step = add_initializer(graph, ir.Tensor(scale, name=f"{layer.name}.input_scale"))
    nodes = InGraph(graph, f"{layer.name}/static")
    wide = cast(nodes, layer.input, ir.DataType.FLOAT)
    steps = nodes.emit("Round", [nodes.emit("Div", [wide, step])])
    kept = nodes.emit("Clip", [steps, number(nodes, -STEPS), number(nodes, STEPS)])
    x = cast(nodes, nodes.emit("Mul", [kept, step]), floats)
    folded = nodes.emit(
        "DequantizeLinear",
        [add_initializer(graph, weight.int8(transposed=True)), add_initializer(graph, weight.scale())],
        axis=ir.AttrInt64("axis", 1),
    )
    apart = add_initializer(graph, ir.Tensor(scale[:, None], name=f"{layer.name}.input_scale_of_rows"))
    product = nodes.emit("MatMul", [x, cast(nodes, nodes.emit("Div", [folded, apart]), floats)])
    if layer.bias is not None:
        nodes.emit("Add", [product, layer.bias])
    return nodes.nodes


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
