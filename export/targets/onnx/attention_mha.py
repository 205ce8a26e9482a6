"""ONNX `Attention` on `[batch, tokens, width]` → ONNX Runtime's `MultiHeadAttention`.

Its CPU kernel goes through keys and values in cache-sized tiles: half again as fast as `Attention` at 4,096 tokens,
and the matrix of scores is never in memory as a whole.
"""

import onnx_ir as ir

from ...graph.layers import MICROSOFT

# What this pass understands; any other attribute leaves the node as it is.
KNOWN = {"q_num_heads", "kv_num_heads", "is_causal", "scale", "qk_matmul_output_mode", "softcap", "softmax_precision"}


def attention_mha(graph: ir.Graph) -> None:
    """Rewrite every unmasked or causal 3-D `Attention` with as many key heads as query heads."""
    for node in list(graph):
        if node.op_type == "Attention" and node.domain in ("", "ai.onnx") and _fits(node):
            _rewrite(graph, node)


def _fits(node: ir.Node) -> bool:
    heads = node.attributes.get_int("q_num_heads", 0)
    return (
        set(node.attributes) <= KNOWN
        and heads > 0  # the attribute goes with the 3-D form
        and heads == node.attributes.get_int("kv_num_heads", 0)
        and node.attributes.get_float("softcap", 0.0) == 0.0
        and all(value is None for value in node.inputs[3:])
        and len([value for value in node.outputs if value.uses() or value.is_graph_output()]) == 1
    )


def _rewrite(graph: ir.Graph, node: ir.Node) -> None:
    attributes: dict[str, int | float] = {"num_heads": node.attributes.get_int("q_num_heads", 0)}
    if node.attributes.get_int("is_causal", 0):
        attributes["unidirectional"] = 1
    if "scale" in node.attributes:
        attributes["scale"] = node.attributes.get_float("scale", 0.0)
    attend = ir.node(
        "MultiHeadAttention", list(node.inputs[:3]), attributes=attributes, domain=MICROSOFT, name=node.name
    )
    ir.convenience.replace_nodes_and_values(graph, node, [node], [attend], [node.outputs[0]], [attend.outputs[0]])
