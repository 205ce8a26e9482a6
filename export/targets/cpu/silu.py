"""`x · sigmoid(a·x)` → ONNX Runtime's `QuickGelu(alpha=a)`: one pass over memory instead of two or three."""

import onnx_ir as ir

from ...graph.layers import MICROSOFT, only_user


def silu(graph: ir.Graph) -> None:
    """Rewrite SiLU (a = 1) and CLIP's quick GELU (a = 1.702)."""
    for node in list(graph):
        if node.op_type == "Sigmoid" and (found := _match(node)) is not None:
            x, alpha, old = found
            gated = old[-1]
            fused = ir.node("QuickGelu", [x], attributes={"alpha": alpha}, domain=MICROSOFT, name=gated.name)
            ir.convenience.replace_nodes_and_values(
                graph, gated, list(reversed(old)), [fused], [gated.outputs[0]], [fused.outputs[0]]
            )


def _match(sigmoid: ir.Node) -> tuple[ir.Value, float, list[ir.Node]] | None:
    """The activation, its alpha, and the nodes that compute it, in order."""
    gated, inner = only_user(sigmoid.outputs[0]), sigmoid.inputs[0]
    if gated is None or gated.op_type != "Mul" or inner is None:
        return None
    if inner in gated.inputs:
        return inner, 1.0, [sigmoid, gated]
    scaled = inner.producer()
    if scaled is None or scaled.op_type != "Mul" or only_user(inner) is None:
        return None
    for x, factor in (tuple(scaled.inputs), tuple(reversed(scaled.inputs))):
        constant = ir.convenience.get_const_tensor(factor) if factor is not None else None
        if x is not None and x in gated.inputs and constant is not None and constant.size == 1:
            return x, float(constant.numpy().reshape(())), [scaled, sigmoid, gated]
    return None
