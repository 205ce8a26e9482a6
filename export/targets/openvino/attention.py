"""Attention of one wide head as two products, which OpenVINO multiplies in AMX's tiles.

Its own kernel is made for heads of 64 to 256 numbers: with SDXL's VAE (one of 512) it took two to four times as long.
Written with a `Softmax` the products would be taken for that kernel; so the weights are divided by their sum behind the
second one.
"""

import numpy as np
import onnx_ir as ir

from ...graph.layers import add_initializer, find_layers
from ...graph.query_chunks import chunk_queries
from ...quantize.formats import Kind

USUAL = 256
"""Numbers of the widest heads that its own kernel is made for."""
CHUNKS = 16
"""At 1024 × 1024 the scores of a chunk take 34 MB in bfloat16."""


def attention_in_chunks(graph: ir.Graph) -> None:
    """The same for a whole picture: the scores of some queries are there at a time. Wide heads alone are so many."""
    outputs = {layer.output: layer for layer in find_layers(graph) if layer.kind is Kind.LINEAR}
    queries = [outputs[node.inputs[0]] for node in graph if node.op_type == "Attention" and node.inputs[0] in outputs]
    widths = {int(layer.weight.shape[0]) for layer in queries if layer.weight.shape is not None}
    if len(widths) == 1:
        chunk_queries(graph, CHUNKS, beyond=USUAL)
        attention_products(graph, widths.pop())


def attention_products(graph: ir.Graph, width: int) -> None:
    """Rewrite every `Attention` of one head of `width` numbers on `[batch, tokens, width]`, without mask or bias."""
    for node in list(graph):
        if node.op_type == "Attention" and node.attributes.get_int("q_num_heads", 0) == 1:
            _rewrite(graph, node, width)


def _rewrite(graph: ir.Graph, node: ir.Node, width: int) -> None:
    query, key, value = node.inputs[:3]
    scale = node.attributes.get_float("scale", width**-0.5)
    constants = {"scale": np.array(scale, np.float32), "axis": np.array([-1], np.int64)}
    factor, axis = (add_initializer(graph, ir.Tensor(x, name=f"{node.name}/{n}")) for n, x in constants.items())
    turn = ir.node("Transpose", [key], attributes={"perm": [0, 2, 1]}, name=f"{node.name}/keys")
    scaled = ir.node("Mul", [query, factor], name=f"{node.name}/queries")
    scores = ir.node("MatMul", [scaled.outputs[0], turn.outputs[0]], name=f"{node.name}/scores")
    most = ir.node("ReduceMax", [scores.outputs[0], axis], name=f"{node.name}/most")
    below = ir.node("Sub", [scores.outputs[0], most.outputs[0]], name=f"{node.name}/below")
    weights = ir.node("Exp", [below.outputs[0]], name=f"{node.name}/weights")
    total = ir.node("ReduceSum", [weights.outputs[0], axis], name=f"{node.name}/total")
    mixed = ir.node("MatMul", [weights.outputs[0], value], name=f"{node.name}/mixed")
    share = ir.node("Div", [mixed.outputs[0], total.outputs[0]], name=str(node.name))
    made = [turn, scaled, scores, most, below, weights, total, mixed, share]
    ir.convenience.replace_nodes_and_values(graph, node, [node], made, [node.outputs[0]], [share.outputs[0]])
