"""A float convolution of a doubled picture as four of the picture itself: 16 products in place of 36 for each pixel.

Behind a nearest-neighbour doubling a 3 × 3 kernel sees but 2 × 2 different pixels, other taps of it for pixels of even
and odd rows and columns; added up, they are four kernels, whose answers take turns. Half of a decoder's products are
behind doublings. Exact but for the rounding of sums; convolutions of int8 stay, whose weights are rounded one by one.
"""

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ...graph.doubling import doubled_input
from ...graph.layers import Layer, add_initializer, find_layers, replace_layer
from ...graph.patch_conv import cornered
from ...quantize.formats import Kind


def doubled_convs(model: ir.Model) -> None:
    """Rewrite every such convolution; `model` has its weights, which are read when it is saved."""
    for layer in find_layers(model.graph):
        small = doubled_input(layer) if layer.kind is Kind.CONV and _usual(layer) else None
        if small is not None:
            replace_layer(model.graph, layer, _four(model.graph, layer, small))
    RemoveUnusedNodesPass()(model)  # the doublings


def _usual(layer: Layer) -> bool:
    """Whether it is 3 × 3, and its answer is as large as its input."""
    attributes = layer.main.attributes
    sides = [attributes.get_ints(name, usual) for name, usual in (("pads", [0] * 4), ("strides", [1, 1]))]
    others = [attributes.get_ints("dilations", [1, 1]), [attributes.get_int("group", 1)]]
    kernel = tuple(layer.weight_data().shape[2:])
    return kernel == (3, 3) and [list(x) for x in (*sides, *others)] == [[1] * 4, [1, 1], [1, 1], [1]]


def _four(graph: ir.Graph, layer: Layer, small: ir.Value) -> list[ir.Node]:
    """One for each of even and odd rows and columns, and what puts their pixels in turn."""
    convs = []
    for odd_row in (0, 1):
        for odd_column in (0, 1):
            weight = add_initializer(graph, _weight(layer, odd_row, odd_column))
            inputs = [small, weight] + ([] if layer.bias is None else [layer.bias])
            pads = [1 - odd_row, 1 - odd_column, odd_row, odd_column]
            attributes = {"kernel_shape": [2, 2], "pads": pads}
            convs.append(ir.node("Conv", inputs, attributes=attributes, name=f"{layer.name}/{odd_row}{odd_column}"))
    outputs = [conv.outputs[0] for conv in convs]
    together = ir.node("Concat", outputs, attributes={"axis": 1}, name=f"{layer.name}/together")
    in_turn = ir.node("DepthToSpace", together.outputs, attributes={"blocksize": 2}, name=f"{layer.name}/in_turn")
    return [*convs, together, in_turn]


def _weight(layer: Layer, odd_row: int, odd_column: int) -> ir.LazyTensor:
    """`[out, in, 2, 2]`."""
    source, name = layer.weight_data(), f"{layer.name}.{odd_row}{odd_column}"
    out, given, *_ = (int(side) for side in source.shape)

    def compute() -> ir.Tensor:
        both = cornered(source.numpy().astype(np.float32), odd=bool(odd_row))
        part = both[:out] if odd_column else both[out:]
        return ir.Tensor(np.ascontiguousarray(part), name=name)

    return ir.LazyTensor(compute, dtype=ir.DataType.FLOAT, shape=ir.Shape([out, given, 2, 2]), name=name)
