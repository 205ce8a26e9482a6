"""Attention of a wide head for some of its queries at a time, so that never all scores are there at once."""

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from ..quantize.formats import Kind
from .layers import add_initializer, find_layers


def chunk_queries(graph: ir.Graph, chunks: int, *, beyond: int) -> None:
    """Cut the queries of every attention whose heads have more than `beyond` numbers; the result is the same.

    They are filled up with zeros to a multiple of `chunks`, since only then do all chunks have one length, of which the
    compiler knows the largest: it makes room for the largest that a length could be by itself. The queries must be
    those of a linear layer, which tells their width.
    """
    linear = [layer for layer in find_layers(graph) if layer.kind is Kind.LINEAR]
    widths = {layer.output: int(layer.weight.shape[0]) for layer in linear if layer.weight.shape is not None}
    for node in list(graph):
        if node.op_type != "Attention" or node.attributes.get_int("is_causal", 0):
            continue
        query = node.inputs[0]
        assert query is not None
        width = widths.get(query, 0)
        if width // node.attributes.get_int("q_num_heads", 1) > beyond:
            _cut(graph, node, query, width, chunks)


def _cut(graph: ir.Graph, node: ir.Node, query: ir.Value, width: int, chunks: int) -> None:
    name = str(node.name)
    nodes: list[ir.Node] = []

    def add(
        op: str, inputs: Iterable[ir.Value | None], what: str, dtype: ir.DataType | None, **attributes: int
    ) -> ir.Value:
        made = ir.node(op, list(inputs), attributes=attributes, name=f"{name}/{what}")
        made.outputs[0].name, made.outputs[0].dtype = f"{name}/{what}:0", dtype
        nodes.append(made)
        return made.outputs[0]

    def constant(number: int) -> ir.Value:
        return add_initializer(graph, ir.tensor(np.array([number], np.int64), name=f"{name}/{number}"))

    whole, half = ir.DataType.INT64, query.dtype
    count = add("Shape", [query], "count", whole, start=1, end=2)
    more = add("Add", [count, constant(chunks - 1)], "more", whole)
    length = add("Div", [more, constant(chunks)], "length", whole)
    full = add("Mul", [length, constant(chunks)], "full", whole)
    lacking = add("Sub", [full, count], "lacking", whole)
    pads = add("Concat", [*[constant(0)] * 4, lacking, constant(0)], "pads", whole, axis=0)
    padded = add("Pad", [query, pads], "padded", half)
    shape = add("Concat", [constant(0), constant(chunks), length, constant(width)], "shape", whole, axis=0)
    stacked = add("Reshape", [padded, shape], "stacked", half)
    heads = {key: node.attributes.get_int(key, 1) for key in ("q_num_heads", "kv_num_heads")}
    parts = []
    for i in range(chunks):
        index = add_initializer(graph, ir.tensor(np.array(i, np.int64), name=f"{name}/index.{i}"))
        part = add("Gather", [stacked, index], f"queries.{i}", half, axis=1)
        parts.append(add("Attention", [part, *node.inputs[1:]], f"chunk.{i}", half, **heads))
    together = add("Concat", parts, "together", half, axis=1)
    joined = add("Slice", [together, constant(0), count, constant(1)], "joined", half)
    ir.convenience.replace_nodes_and_values(graph, node, [node], nodes, [node.outputs[0]], [joined])
