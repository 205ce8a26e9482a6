"""Scores of self-attention in 8 bits as the kernels round them, in plain ONNX: the stand-in's part of attention.

Queries have a scale for each token of a head; the mean of a picture's keys is taken off them, and 64 of a head have a
scale. An engine rounds so on GeForce cards and multiplies halves on others (`kernels.attention.plan.fastest_form`):
what is measured is the worse of the two. Sums in halves, which are 3e-4 off, are left out.
"""

from collections.abc import Collection

import onnx_ir as ir

from ....kernels.attention.plan import HEAD_DIM, KEY_BLOCK
from ...graph.attentions import self_attentions
from ...graph.nodes import InGraph
from .rounded import cast, integers, rounded


def scores(graph: ir.Graph, names: Collection[str]) -> None:
    """Round queries and keys of these attentions. Raises `ValueError` for one that is not in the graph."""
    for name, node, (queries, keys, _) in self_attentions(graph, names):
        for at, layer, round_one in ((0, queries, _queries), (1, keys, _keys)):
            nodes = InGraph(graph, f"{name}/{layer.name.rpartition('.')[2]}")
            made = round_one(nodes, layer.output, layer.input.dtype, int(layer.weight.shape[0]))
            graph.insert_before(node, nodes.nodes)
            node.replace_input_with(at, made)


def _queries(nodes: InGraph, x: ir.Value, dtype: ir.DataType, width: int) -> ir.Value:
    """Of `[batch, tokens, width]`."""
    apart = nodes.emit("Reshape", [x, integers(nodes, 0, 0, width // HEAD_DIM, HEAD_DIM)])
    return nodes.emit("Reshape", [rounded(nodes, apart, (3,), dtype), integers(nodes, 0, 0, width)])


def _keys(nodes: InGraph, x: ir.Value, dtype: ir.DataType, width: int) -> ir.Value:
    """The same, with zeros behind the last key of a picture while they are rounded."""
    emit = nodes.emit
    wide = cast(nodes, x, ir.DataType.FLOAT)
    tokens, zero = integers(nodes, 1), integers(nodes, 0)
    centred = emit("Sub", [wide, emit("ReduceMean", [wide, tokens])])
    count = emit("Shape", [x], start=ir.AttrInt64("start", 1), end=ir.AttrInt64("end", 2))
    missing = emit("Mod", [emit("Neg", [count]), integers(nodes, KEY_BLOCK)])
    ends = emit("Concat", [zero, zero, zero, zero, missing, zero], axis=ir.AttrInt64("axis", 0))
    blocks = integers(nodes, 0, -1, KEY_BLOCK, width // HEAD_DIM, HEAD_DIM)
    apart = emit("Reshape", [emit("Pad", [centred, ends]), blocks])
    joined = emit("Reshape", [rounded(nodes, apart, (2, 4), dtype), integers(nodes, 0, -1, width)])
    return emit("Slice", [joined, zero, count, tokens])
