"""Products of 8-bit numbers: `QuantizeLinear` → `DequantizeLinear` on the input, `DequantizeLinear` on the weight.

TensorRT for RTX lowers this to `fully_connected` and `corrltn` on 8 × 8 bits, with the rounding inside the kernel
before (norm, GEGLU, SiLU). Layers that read the same tensor share its numbers, so that queries, keys and values are one
product.

**The trap.** With a scale for each output channel in `DequantizeLinear` a matrix product writes its raw sums as halves
(alpha is 1 in the program) and a kernel behind it scales them: sums of 128 · 127 · width, or 448 · 448 · width, leave
half's range; a convolution writes them as float32. So both factors have one scale, which the product itself applies,
and what a channel's scale is relative to that is a `Mul` behind it, in one kernel with bias, residual and what follows.
The scale of the weight is that power of two with which no numbers whatever can make a sum beyond `Numbers.largest_sum`:
it follows from the width and the input alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import onnx_ir as ir

from ...graph.layers import Layer, add_initializer, find_layers, replace_layer
from ...graph.stored_weight import Array, StoredWeight
from ...quantize.formats import Kind
from ...quantize.grid import LARGEST_HALF
from ...quantize.quantization import Quantization
from ...quantize.rounded import Floats

LEAST_STEP: Final = 2.0**-14
"""Of an input: the smallest normal half."""
_LEAST_SCALE, _MOST_SCALE = 2.0**-24, 2.0**15
_MOST_FACTOR: Final = 6e4


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """What inputs and weights are rounded to."""

    name: str
    kind: Literal["int", "float"]
    dtype: ir.DataType
    largest_product: float
    """Of an input and a weight, in steps."""
    largest_sum: float
    """Half of it at least is what a product of the extremes makes. Real sums, of random signs, are smaller by √width
    and by what numbers lie below their largest."""


def weight_scale(numbers: Numbers, width: int, step: float) -> float:
    """What a step of a weight's numbers is worth in a product of that width; a power of two that half has."""
    largest = math.log2(numbers.largest_sum / (numbers.largest_product * width * step))
    return float(np.clip(2.0 ** math.floor(largest), _LEAST_SCALE, _MOST_SCALE))


def rewrite_products(graph: ir.Graph, quantization: Quantization, numbers: Numbers) -> None:
    """Rewrite every layer whose input is `signed` and of these numbers; `ValueError` for one without its scales."""
    for kind in (Kind.LINEAR, Kind.CONV):
        readers: dict[ir.Value, list[Layer]] = {}
        for layer in find_layers(graph):
            format = quantization.format(kind, layer.name)
            taken = format.activation if layer.kind is kind and format.signed else None
            if taken is None or taken.kind != numbers.kind:
                continue
            if layer.name not in quantization.input_scales:
                raise ValueError(
                    f"{quantization.role}: {layer.name} has no calibrated scale: observe it before lowering"
                )
            readers.setdefault(layer.input, []).append(layer)
        for layers in readers.values():
            _rewrite(graph, layers, quantization, numbers)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Input:
    """A tensor that was rounded: `value` is what is left of it."""

    value: ir.Value
    step: float
    factors: Floats | None
    """What its channels were divided by before."""


def _rewrite(graph: ir.Graph, layers: Sequence[Layer], quantization: Quantization, numbers: Numbers) -> None:
    """Layers that read the same tensor; those without scales for channels share the longest of their ranges."""
    scales = {layer.name: quantization.input_scales[layer.name] for layer in layers}
    alike = [layer for layer in layers if np.ptp(scales[layer.name]) == 0]
    step = max((float(scales[layer.name].max(initial=0)) for layer in alike), default=0.0)
    shared: _Input | None = None
    for layer in layers:
        if layer not in alike:
            taken = _quantize(graph, layer, numbers, float(scales[layer.name].max()), scales[layer.name])
        else:
            taken = shared = shared or _quantize(graph, layer, numbers, step, None)
        replace_layer(graph, layer, _product(graph, layer, taken, quantization, numbers))


def _quantize(graph: ir.Graph, layer: Layer, numbers: Numbers, step: float, scale: Floats | None) -> _Input:
    """Nodes before the layer; with the `scale` of each channel, these are divided by its proportion to `step` first."""
    kept = np.float16(max(step, LEAST_STEP))
    given, nodes, factors = layer.input, [], None
    if scale is not None:
        inverse = np.minimum(np.float32(step) / scale, _MOST_FACTOR).astype(np.float16)
        factors = 1 / inverse.astype(np.float32)
        shape = (-1, 1, 1) if layer.kind is Kind.CONV else (-1,)
        channels = constant(graph, f"{layer.name}.input_factors", inverse.reshape(shape))
        nodes.append(ir.node("Mul", [given, channels], name=f"{layer.name}/divide"))
        given = nodes[-1].outputs[0]
        given.dtype = ir.DataType.FLOAT16
    rounding = rounded(graph, given, numbers, constant(graph, f"{layer.name}.input_scale", np.array(kept)), layer.name)
    graph.insert_before(layer.nodes[0], [*nodes, *rounding])
    return _Input(value=rounding[-1].outputs[0], step=float(kept), factors=factors)


def rounded(graph: ir.Graph, given: ir.Value, numbers: Numbers, step: ir.Value, name: str) -> list[ir.Node]:
    """Nodes that round a value in half precision to 8 bits and back; the last one's output is what is left of it."""
    edges = [step, constant(graph, f"{numbers.name}.zero", np.array(0, numbers.dtype.numpy()))]
    quantize = ir.node("QuantizeLinear", [given, *edges], name=f"{name}/quantize")
    back = ir.node("DequantizeLinear", [quantize.outputs[0], *edges], name=f"{name}/dequantize_input")
    quantize.outputs[0].dtype, back.outputs[0].dtype = numbers.dtype, ir.DataType.FLOAT16
    return [quantize, back]


def _product(
    graph: ir.Graph, layer: Layer, taken: _Input, quantization: Quantization, numbers: Numbers
) -> list[ir.Node]:
    how = quantization.format(layer.kind, layer.name).weight
    assert how is not None
    linear = layer.kind is Kind.LINEAR
    weight = StoredWeight.of(layer, how, quantization, taken.factors)
    scale = weight_scale(numbers, weight.width, taken.step)
    shape = weight.shape[:1] if linear else (weight.shape[0], 1, 1)

    def relative() -> Array:
        # Where this is more than half's largest, so is an output of random signs, which `check_range` has refused.
        factors = (weight.rounded().scale / np.float32(scale)).clip(max=LARGEST_HALF)
        return factors.astype(np.float16).reshape(shape)

    data = add_initializer(graph, weight.bits(numbers.name, numbers.dtype, transposed=linear))
    channels = add_initializer(graph, weight.tensor("channels", ir.DataType.FLOAT16, shape, relative))
    one = constant(graph, f"{layer.name}.weight_scale", np.array(scale, np.float16))
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


def constant(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    """A small initializer; one of that name that is there already is used again."""
    return add_initializer(graph, ir.Tensor(array, name=name))
