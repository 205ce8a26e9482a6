"""How many sides the values of a lowered graph have, as far as simple rules tell.

ONNX's own inference stops at ONNX Runtime's operators and at shapes that are computed, so it knows few of them.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

_AS_THE_FIRST = {
    "Cast", "Clip", "Concat", "Conv", "DequantizeLinear", "GroupNorm", "GroupNormalization", "InstanceNormalization",
    "LayerNormalization", "NhwcConv", "Pad", "QLinearConv", "QuantizeLinear", "QuickGelu", "Resize", "Sigmoid", "Slice",
    "Softmax", "Split", "Transpose",
}  # fmt: skip
_AS_THE_MOST = {"Add", "Div", "Mul", "Sub"}


def ranks_of(graph: "onnx.GraphProto") -> dict[str, int]:
    """Value → how many sides it has; without those of which nothing is known."""
    found = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info):
        if value.type.tensor_type.HasField("shape"):
            found[value.name] = len(value.type.tensor_type.shape.dim)
    weights = {tensor.name for tensor in graph.initializer}
    lengths = {tensor.name: tensor.dims[0] for tensor in graph.initializer if len(tensor.dims) == 1}
    for node in graph.node:
        known = [found[name] for name in node.input if name in found and name not in weights]
        rank: int | None = None
        if node.op_type in _AS_THE_FIRST:
            rank = found.get(node.input[0])
        elif node.op_type in _AS_THE_MOST and known:
            # Of two activations none has more sides than the other; a bias may have fewer.
            rank = max(known)
        elif node.op_type == "Reshape":
            rank = lengths.get(node.input[1])
        elif node.op_type == "Shape" and not node.attribute and node.input[0] in found:
            lengths[node.output[0]] = found[node.input[0]]
        if rank is not None:
            found.update((name, rank) for name in node.output if name not in found)
    return found
