"""Inputs of layers in 8 bits around 0: `QuantizeLinear` → `DequantizeLinear` on the tensor that they read.

Compilers make products of 8-bit numbers of that, with the rounding inside the kernel before (norm, GEGLU, SiLU). Layers
that read the same tensor share its numbers, so that queries, keys and values are one product.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import onnx_ir as ir

from ...graph.layers import Layer, add_initializer, find_layers
from ...graph.stored_weight import Array
from ...quantize.formats import Kind
from ...quantize.quantization import Quantization
from ...quantize.rounded import Floats

LEAST_STEP: Final = 2.0**-14
"""Of an input: the smallest normal half."""
_MOST_FACTOR: Final = 6e4


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """What inputs and weights are rounded to."""

    name: str
    kind: Literal["int", "float"]
    dtype: ir.DataType


@dataclass(frozen=True, eq=False, kw_only=True)
class SignedInput:
    """A tensor that was rounded: `value` is what is left of it."""

    value: ir.Value
    step: float
    factors: Floats | None
    """What its channels were divided by before."""


def signed_inputs(
    graph: ir.Graph, quantization: Quantization, numbers: Numbers, floats: ir.DataType
) -> Iterator[tuple[Layer, SignedInput]]:
    """Round the input of every layer whose format is `signed` and of these numbers; the caller replaces the layer.

    `floats` is what the graph computes in. `ValueError` for a layer without its scales.
    """
    for kind in (Kind.LINEAR, Kind.CONV):
        readers: dict[ir.Value, list[Layer]] = {}
        for layer in find_layers(graph):
            format = quantization.format(kind, layer.name)
            taken = format.activation if layer.kind is kind and format.signed else None
            if taken is None or taken.kind != numbers.kind:
                continue
            if quantization.input_scale(layer.name) is None:
                raise ValueError(
                    f"{quantization.role}: {layer.name} has no calibrated scale: observe it before lowering"
                )
            readers.setdefault(layer.input, []).append(layer)
        for layers in readers.values():
            yield from _shared(graph, layers, quantization, numbers, floats)


def _shared(
    graph: ir.Graph, layers: Sequence[Layer], quantization: Quantization, numbers: Numbers, floats: ir.DataType
) -> Iterator[tuple[Layer, SignedInput]]:
    """Layers that read the same tensor; those without scales for channels share the longest of their ranges.

    Parts of one layer share what it has.
    """
    scales = {layer.name: scale for layer in layers if (scale := quantization.input_scale(layer.name)) is not None}
    alike = [layer.name for layer in layers if np.ptp(scales[layer.name]) == 0]
    step = max((float(scales[name].max(initial=0)) for name in alike), default=0.0)
    made: dict[int | None, SignedInput] = {}
    for layer in layers:
        scale = None if layer.name in alike else scales[layer.name]
        key = None if scale is None else id(scale)
        if key not in made:
            largest = step if scale is None else float(scale.max())
            made[key] = _quantize(graph, layer, numbers, floats, largest, scale)
        yield layer, made[key]


def _quantize(
    graph: ir.Graph, layer: Layer, numbers: Numbers, floats: ir.DataType, step: float, scale: Floats | None
) -> SignedInput:
    """Nodes before the layer; with the `scale` of each channel, these are divided by its proportion to `step` first."""
    kept = np.asarray(max(step, LEAST_STEP), floats.numpy())
    given, nodes, factors = layer.main.inputs[0], [], None  # a layer before it may have been replaced by now
    assert given is not None
    if scale is not None:
        inverse = np.minimum(np.float32(step) / scale, _MOST_FACTOR).astype(floats.numpy())
        factors = 1 / inverse.astype(np.float32)
        shape = (-1, 1, 1) if layer.kind is Kind.CONV else (-1,)
        channels = constant(graph, f"{layer.name}.input_factors", inverse.reshape(shape))
        nodes.append(ir.node("Mul", [given, channels], name=f"{layer.name}/divide"))
        given = nodes[-1].outputs[0]
        given.dtype = floats
    rounding = rounded(graph, given, numbers, constant(graph, f"{layer.name}.input_scale", kept), layer.name)
    graph.insert_before(layer.nodes[0], [*nodes, *rounding])
    return SignedInput(value=rounding[-1].outputs[0], step=float(kept), factors=factors)


def rounded(graph: ir.Graph, given: ir.Value, numbers: Numbers, step: ir.Value, name: str) -> list[ir.Node]:
    """Nodes that round a value to 8 bits and back to the floats of `step`; the last one's output is what is left."""
    edges = [step, constant(graph, f"{numbers.name}.zero", np.array(0, numbers.dtype.numpy()))]
    quantize = ir.node("QuantizeLinear", [given, *edges], name=f"{name}/quantize")
    back = ir.node("DequantizeLinear", [quantize.outputs[0], *edges], name=f"{name}/dequantize_input")
    quantize.outputs[0].dtype, back.outputs[0].dtype = numbers.dtype, step.dtype
    return [quantize, back]


def constant(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    """A small initializer; one of that name that is there already is used again."""
    return add_initializer(graph, ir.Tensor(array, name=name))
