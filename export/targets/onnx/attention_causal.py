"""Causal `Attention` → products, a mask and a softmax, as every provider of ONNX Runtime has them.

DirectML's `MultiHeadAttention` has no mask of its own: it takes a graph with `unidirectional` without a word and lets
every token look at those behind it (onnxruntime's DmlOperatorMultiHeadAttention.cpp never reads the attribute). Only
text encoders mask, once a prompt and on 77 tokens, so that nothing is lost.
"""

import numpy as np
import onnx_ir as ir

from ...graph.layers import add_initializer

HIDDEN = -10000.0
"""Beyond any score, and well within half precision: its exponential is 0 in every type of floats."""


def attention_causal(graph: ir.Graph, *, tokens: int, width: int, dtype: ir.DataType) -> None:
    """Rewrite every causal 3-D `Attention` on `[batch, tokens, width]`, whose numbers are `dtype`."""
    for node in list(graph):
        if node.op_type == "Attention" and node.attributes.get_int("is_causal", 0):
            _rewrite(graph, node, tokens, width, dtype)


def _rewrite(graph: ir.Graph, node: ir.Node, tokens: int, width: int, dtype: ir.DataType) -> None:
    heads = node.attributes.get_int("q_num_heads", 0)
    numbers = dtype.numpy()
    scale = np.array(node.attributes.get_float("scale", (width // heads) ** -0.5), numbers)
    above = np.triu(np.full((tokens, tokens), HIDDEN, numbers), 1)
    scaling, mask = (
        add_initializer(graph, ir.Tensor(value, name=name))
        for name, value in ((f"causal.scale_{float(scale):.6g}", scale), (f"causal.mask_{tokens}", above))
    )
    apart = add_initializer(graph, ir.Tensor(np.array([0, 0, heads, -1]), name=f"causal.heads_{heads}"))
    together = add_initializer(graph, ir.Tensor(np.array([0, 0, -1]), name="causal.together"))
    nodes: list[ir.Node] = []

    def step(op: str, name: str, *inputs: ir.Value | None, **attributes: int | list[int]) -> ir.Value:
        nodes.append(ir.node(op, inputs, attributes=attributes, name=f"{node.name}/{name}"))
        return nodes[-1].outputs[0]

    query = step("Mul", "scale", node.inputs[0], scaling)  # before the product, which half could overflow in
    sides = [
        step("Transpose", f"{name}_turned", step("Reshape", f"{name}_apart", value, apart), perm=perm)
        for name, value, perm in (
            ("query", query, [0, 2, 1, 3]),
            ("key", node.inputs[1], [0, 2, 3, 1]),
            ("value", node.inputs[2], [0, 2, 1, 3]),
        )
    ]
    scores = step("Add", "mask", step("MatMul", "scores", sides[0], sides[1]), mask)
    mixed = step("MatMul", "mix", step("Softmax", "softmax", scores, axis=-1), sides[2])
    step("Reshape", "together", step("Transpose", "turned_back", mixed, perm=[0, 2, 1, 3]), together)
    last = nodes[-1]
    ir.convenience.replace_nodes_and_values(graph, node, [node], nodes, [node.outputs[0]], [last.outputs[0]])
