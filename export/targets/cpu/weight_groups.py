"""Convolutions and embeddings whose weights have a scale for some numbers in a row, 4 bits each, computed in floats.

A convolution's weight is made floats when its layer runs, as a matrix `[out, in · height · width]`; of an embedding
only the rows that are read.
"""

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from ...graph.layers import MICROSOFT, Layer, add_initializer, find_layers, replace_layer
from ...graph.stored_weight import Array, StoredWeight
from ...quantize.formats import Kind
from ...quantize.quantization import Quantization

if TYPE_CHECKING:
    from ...quantize.formats import Weight


def weight_groups(graph: ir.Graph, quantization: Quantization) -> None:
    """Rewrite every convolution and embedding whose weight has groups."""
    for kind, rewrite in ((Kind.CONV, _conv), (Kind.EMBEDDING, _embedding)):
        for layer in find_layers(graph):
            how = quantization.format(kind, layer.name).weight if layer.kind is kind else None
            if how is not None and how.group is not None:
                replace_layer(graph, layer, rewrite(graph, layer, how, quantization))


def _conv(graph: ir.Graph, layer: Layer, how: "Weight", quantization: Quantization) -> list[ir.Node]:
    weight = StoredWeight.of(layer, how, quantization)
    shape = ir.Tensor(np.array(weight.shape, np.int64), name=f"{layer.name}.weight_shape")
    dequantize = ir.node(
        "DequantizeLinear",
        _stored(graph, weight),
        attributes={"axis": 1, "block_size": how.group},
        name=f"{layer.name}/dequantize",
    )
    kernel = ir.node("Reshape", [dequantize.outputs[0], add_initializer(graph, shape)], name=f"{layer.name}/kernel")
    inputs = [layer.input, kernel.outputs[0], *([layer.bias] if layer.bias is not None else [])]
    return [dequantize, kernel, ir.node("Conv", inputs, attributes=dict(layer.main.attributes), name=layer.name)]


def _embedding(graph: ir.Graph, layer: Layer, how: "Weight", quantization: Quantization) -> list[ir.Node]:
    data, scale, zero = _stored(graph, StoredWeight.of(layer, how, quantization))
    return [
        ir.node(
            "GatherBlockQuantized",
            [data, layer.input, scale, zero],
            attributes={"gather_axis": 0, "quantize_axis": 1, "block_size": how.group},
            domain=MICROSOFT,
            name=layer.name,
        )
    ]


def _stored(graph: ir.Graph, weight: StoredWeight) -> list[ir.Value]:
    """Numbers `[out, width]`, scales and zero points `[out, groups]`; ONNX packs two of them in a byte."""
    out, nibbles = weight.shape[0], ir.DataType.UINT4

    def data() -> Array:
        return weight.rounded().data.astype(nibbles.numpy())

    def zero() -> Array:
        found = weight.rounded().zero
        assert found is not None
        return found.astype(nibbles.numpy())

    tensors = (
        weight.tensor("uint4", nibbles, (out, weight.width), data),
        weight.scale(),
        weight.tensor("zero_point", nibbles, (out, weight.groups), zero),
    )
    return [add_initializer(graph, tensor) for tensor in tensors]
