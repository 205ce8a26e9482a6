"""Products of int8 with int8: `QuantizeLinear` → `DequantizeLinear` on the input, `DequantizeLinear` on the weight.

TensorRT for RTX documents int8 for weights alone, but lowers this to `fully_connected` and `corrltn` on int8 × int8,
with the rounding inside the kernel before (norm, GEGLU, SiLU). Layers that read the same tensor share its numbers, so
that queries, keys and values are one product.

**The trap.** With a scale for each output channel in `DequantizeLinear` a matrix product writes its raw sums as halves
(alpha is 1 in the program) and a kernel behind it scales them: sums of 128 · 127 · width leave half's range. So both
factors have one scale, which the product itself applies, and what a channel's scale is relative to that is a `Mul`
behind it, in one kernel with bias, residual and what follows. The scale of the weight is that power of two with which
no numbers whatever can make a sum beyond `LARGEST_SUM`: it follows from the width and the input alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx_ir as ir

from ...graph.layers import Layer, add_initializer, find_layers, replace_layer
from ...graph.stored_weight import Array, StoredWeight
from ...quantize.formats import W8A8_SIGNED, Kind
from ...quantize.quantization import Quantization
from ...quantize.rounded import Floats

LARGEST_SUM: Final = 2048.0
"""Half of it at least is what a product of the extremes makes; real sums, of random signs, are 13 · √width smaller:
around 1, in the middle of half's range. Then a channel's factor behind the product is about as large as its output."""
_STEPS: Final = 128 * 127
"""The largest product of an input and a weight, in steps."""
_LEAST_STEP: Final = 2.0**-14
"""Of an input: the smallest normal half. Inputs below 0.008 get fewer steps than 127."""
_LEAST_SCALE, _MOST_SCALE = 2.0**-24, 2.0**15
_MOST_FACTOR: Final = 6e4


def int8(graph: ir.Graph, quantization: Quantization) -> None:
    """Rewrite every layer whose input is `signed`; `ValueError` for one without its scales."""
    for kind in (Kind.LINEAR, Kind.CONV):
        readers: dict[ir.Value, list[Layer]] = {}
        for layer in find_layers(graph):
            if layer.kind is not kind or not quantization.format(kind, layer.name).signed:
                continue
            if layer.name not in quantization.input_scales:
                raise ValueError(
                    f"{quantization.role}: {layer.name} has no calibrated scale: observe it before lowering"
                )
            readers.setdefault(layer.input, []).append(layer)
        for layers in readers.values():
            _rewrite(graph, layers, quantization)


def weight_scale(width: int, step: float) -> float:
    """What a step of a weight's numbers is worth in a product of that width; a power of two that half has.

    Beyond steps of 180 and widths of 11,520 the least one makes sums up to a few times `LARGEST_SUM`.
    """
    largest = math.log2(LARGEST_SUM / (_STEPS * width * step))
    return float(np.clip(2.0 ** math.floor(largest), _LEAST_SCALE, _MOST_SCALE))


@dataclass(frozen=True, eq=False, kw_only=True)
class _Input:
    """A tensor that was rounded: `value` is what is left of it."""

    value: ir.Value
    step: float
    factors: Floats | None
    """What its channels were divided by before."""


def _rewrite(graph: ir.Graph, layers: Sequence[Layer], quantization: Quantization) -> None:
    """Layers that read the same tensor; those without scales for channels share the longest of their ranges."""
    scales = {layer.name: quantization.input_scales[layer.name] for layer in layers}
    alike = [layer for layer in layers if np.ptp(scales[layer.name]) == 0]
    step = max((float(scales[layer.name].max(initial=0)) for layer in alike), default=0.0)
    shared: _Input | None = None
    for layer in layers:
        if layer not in alike:
            taken = _quantize(graph, layer, float(scales[layer.name].max()), scales[layer.name])
        else:
            taken = shared = shared or _quantize(graph, layer, step, None)
        replace_layer(graph, layer, _product(graph, layer, taken, quantization))


def _quantize(graph: ir.Graph, layer: Layer, step: float, scale: Floats | None) -> _Input:
    """Nodes before the layer; with the `scale` of each channel, these are divided by its proportion to `step` first."""
    kept = np.float16(max(step, _LEAST_STEP))
    given, nodes, factors = layer.input, [], None
    if scale is not None:
        inverse = np.minimum(np.float32(step) / scale, _MOST_FACTOR).astype(np.float16)
        factors = 1 / inverse.astype(np.float32)
        shape = (-1, 1, 1) if layer.kind is Kind.CONV else (-1,)
        channels = _constant(graph, f"{layer.name}.input_factors", inverse.reshape(shape))
        nodes.append(ir.node("Mul", [given, channels], name=f"{layer.name}/divide"))
        given = nodes[-1].outputs[0]
        given.dtype = ir.DataType.FLOAT16
    edges = [
        _constant(graph, f"{layer.name}.input_scale", np.array(kept)),
        _constant(graph, "int8.zero", np.array(0, np.int8)),
    ]
    quantize = ir.node("QuantizeLinear", [given, *edges], name=f"{layer.name}/quantize")
    back = ir.node("DequantizeLinear", [quantize.outputs[0], *edges], name=f"{layer.name}/dequantize_input")
    graph.insert_before(layer.nodes[0], [*nodes, quantize, back])
    return _Input(value=back.outputs[0], step=float(kept), factors=factors)


def _product(graph: ir.Graph, layer: Layer, taken: _Input, quantization: Quantization) -> list[ir.Node]:
    assert W8A8_SIGNED.weight is not None
    linear = layer.kind is Kind.LINEAR
    weight = StoredWeight.of(layer, W8A8_SIGNED.weight, quantization, taken.factors)
    scale = weight_scale(weight.width, taken.step)
    shape = weight.shape[:1] if linear else (weight.shape[0], 1, 1)

    def relative() -> Array:
        return (weight.rounded().scale / np.float32(scale)).astype(np.float16).reshape(shape)

    data = add_initializer(graph, weight.int8(transposed=linear))
    channels = add_initializer(graph, weight.tensor("channels", ir.DataType.FLOAT16, shape, relative))
    one = _constant(graph, f"{layer.name}.weight_scale", np.array(scale, np.float16))
    floats = ir.node("DequantizeLinear", [data, one], name=f"{layer.name}/dequantize")
    inputs = [taken.value, floats.outputs[0]]
    if linear:
        product = ir.node("MatMul", inputs, name=layer.name)
    else:
        product = ir.node("Conv", inputs, attributes=dict(layer.main.attributes), name=layer.name)
    nodes = [floats, product, ir.node("Mul", [product.outputs[0], channels], name=f"{layer.name}/channels")]
    if layer.bias is not None:
        bias = layer.bias if linear else add_initializer(graph, _column(layer))
        nodes.append(ir.node("Add", [nodes[-1].outputs[0], bias], name=f"{layer.name}/bias"))
    return nodes


def _column(layer: Layer) -> ir.LazyTensor:
    """A convolution's bias `[out, 1, 1]`."""
    source, name = layer.bias_data(), f"{layer.name}.bias_column"
    assert source is not None
    shape = (int(source.shape[0]), 1, 1)
    return ir.LazyTensor(
        lambda: ir.Tensor(source.numpy().astype(np.float16).reshape(shape), name=name),
        dtype=ir.DataType.FLOAT16,
        shape=ir.Shape(shape),
        name=name,
    )


def _constant(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    return add_initializer(graph, ir.Tensor(array, name=name))
