"""Products of 8-bit numbers: a rounded input (`targets.onnx.signed_inputs`), `DequantizeLinear` on the weight.

TensorRT for RTX lowers this to `fully_connected` and `corrltn` on 8 × 8 bits, with the rounding inside the kernel
before.

**The trap.** With a scale for each output channel in `DequantizeLinear` a matrix product writes its raw sums as halves
(alpha is 1 in the program) and a kernel behind it scales them: sums of 128 · 127 · width, or 448 · 448 · width, leave
half's range; a convolution writes them as float32. So both factors have one scale, which the product itself applies,
and what a channel's scale is relative to that is a `Mul` behind it, in one kernel with bias, residual and what follows.
The scale of the weight is that power of two with which no numbers whatever can make a sum beyond
`SummedNumbers.largest_sum`: it follows from the width and the input alone.
"""

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...graph.layers import Layer, add_initializer, replace_layer
from ...graph.stored_weight import Array, StoredWeight
from ...quantize.formats import Kind
from ...quantize.grid import LARGEST_HALF
from ...quantize.quantization import Quantization
from ..onnx.signed_inputs import Numbers, SignedInput, constant, signed_inputs

_LEAST_SCALE, _MOST_SCALE = 2.0**-24, 2.0**15


@dataclass(frozen=True, kw_only=True)
class SummedNumbers(Numbers):
    """What inputs and weights are rounded to, and how far their products may go."""

    largest_product: float
    """Of an input and a weight, in steps."""
    largest_sum: float
    """Half of it at least is what a product of the extremes makes. Real sums, of random signs, are smaller by √width
    and by what numbers lie below their largest."""


def weight_scale(numbers: SummedNumbers, width: int, step: float) -> float:
    """What a step of a weight's numbers is worth in a product of that width; a power of two that half has."""
    largest = math.log2(numbers.largest_sum / (numbers.largest_product * width * step))
    return float(np.clip(2.0 ** math.floor(largest), _LEAST_SCALE, _MOST_SCALE))


def rewrite_products(graph: ir.Graph, quantization: Quantization, numbers: SummedNumbers) -> None:
    """Rewrite every layer whose input is `signed` and of these numbers; `ValueError` for one without its scales."""
    for layer, taken in signed_inputs(graph, quantization, numbers, ir.DataType.FLOAT16):
        replace_layer(graph, layer, _product(graph, layer, taken, quantization, numbers))


def _product(
    graph: ir.Graph, layer: Layer, taken: SignedInput, quantization: Quantization, numbers: SummedNumbers
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
