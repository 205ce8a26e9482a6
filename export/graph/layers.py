"""Find the layers of a master graph that hold a weight matrix, and put other nodes in their place.

The master writes a linear layer as `MatMul(x, Transpose(W)) (+ Add(bias))` or `Gemm(x, W, bias, transB=1)`, a
convolution as `Conv(x, W, bias)` and an embedding as `Gather(W, ids)`; `W` is an initializer named `<layer>.weight`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ..quantize.formats import Format, Kind
from ..quantize.quantization import Quantization

MICROSOFT = "com.microsoft"
DOMAIN = "pocketxl"
"""Of the nodes that no file has: see `stand_ins`."""
# Operators of ONNX Runtime that are no part of ONNX itself, and the version that all of them have.
MICROSOFT_VERSION = 1


@dataclass(frozen=True, eq=False, kw_only=True)
class Layer:
    """One layer: the nodes that compute it, in order, and the values at its edge."""

    kind: Kind
    name: str
    nodes: tuple[ir.Node, ...]
    input: ir.Value
    output: ir.Value
    weight: ir.Value
    """The initializer `[out, ...]` (embedding: `[rows, width]`)."""
    bias: ir.Value | None

    @property
    def main(self) -> ir.Node:
        """The node that multiplies (or gathers)."""
        return self.nodes[0]

    def weight_data(self) -> ir.TensorProtocol:
        """The weight, which is read only when asked for its numbers."""
        return _data(self.weight)

    def bias_data(self) -> ir.TensorProtocol | None:
        """The bias, likewise."""
        return None if self.bias is None else _data(self.bias)


def find_layers(graph: ir.Graph) -> list[Layer]:
    """Every layer with a weight, in the order in which they run."""
    return list(_layers(graph))


def layers_in(graph: ir.Graph, kind: Kind, wanted: Format, quantization: Quantization) -> list[Layer]:
    """The layers of one kind that get the format."""
    return [
        layer for layer in find_layers(graph) if layer.kind is kind and quantization.format(kind, layer.name) == wanted
    ]


def add_initializer(graph: ir.Graph, tensor: ir.TensorProtocol) -> ir.Value:
    """Register a tensor under its own name; one that is there already under that name is used again."""
    name = tensor.name
    assert name
    if name in graph.initializers:
        return graph.initializers[name]
    shape = ir.Shape([int(d) for d in tensor.shape])
    value = ir.Value(name=name, shape=shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def replace_layer(graph: ir.Graph, layer: Layer, nodes: Sequence[ir.Node]) -> None:
    """Put `nodes` in the layer's place; the last one's first output takes over the layer's output, name and users."""
    ir.convenience.replace_nodes_and_values(
        graph, layer.nodes[0], list(reversed(layer.nodes)), nodes, [layer.output], [nodes[-1].outputs[0]]
    )


def only_user(value: ir.Value) -> ir.Node | None:
    """The node that alone uses the value once, unless the value is an output of the graph."""
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def _layers(graph: ir.Graph) -> Iterator[Layer]:
    for node in graph:
        if node.domain not in ("", "ai.onnx"):
            continue
        if node.op_type == "MatMul":
            found = _linear_matmul(node)
        elif node.op_type == "Gemm":
            found = _linear_gemm(node)
        elif node.op_type == "Conv":
            found = _layer(Kind.CONV, (node,), node.inputs[0], node.inputs[1], _third(node))
        elif node.op_type == "Gather":
            found = _layer(Kind.EMBEDDING, (node,), node.inputs[1], node.inputs[0], None)
        else:
            found = None
        if found is not None:
            yield found


def _linear_matmul(node: ir.Node) -> Layer | None:
    transpose = node.inputs[1].producer() if node.inputs[1] is not None else None
    if transpose is None or transpose.op_type != "Transpose":
        return None
    add = only_user(node.outputs[0])
    if add is not None and add.op_type == "Add":
        for bias in add.inputs:
            if bias is not None and bias.is_initializer() and bias.shape is not None and len(bias.shape) == 1:
                return _layer(Kind.LINEAR, (node, add), node.inputs[0], transpose.inputs[0], bias)
    return _layer(Kind.LINEAR, (node,), node.inputs[0], transpose.inputs[0], None)


def _linear_gemm(node: ir.Node) -> Layer | None:
    trans_a, trans_b = (node.attributes.get_int(name, 0) for name in ("transA", "transB"))
    alpha, beta = (node.attributes.get_float(name, 1.0) for name in ("alpha", "beta"))
    if (trans_a, trans_b, alpha, beta) != (0, 1, 1.0, 1.0):
        return None
    return _layer(Kind.LINEAR, (node,), node.inputs[0], node.inputs[1], _third(node))


def _layer(
    kind: Kind, nodes: tuple[ir.Node, ...], input: ir.Value | None, weight: ir.Value | None, bias: ir.Value | None
) -> Layer | None:
    if input is None or weight is None or weight.name is None:
        return None
    if not weight.is_initializer() or not weight.name.endswith(".weight"):
        return None
    if bias is not None and not bias.is_initializer():
        return None
    name = weight.name.removesuffix(".weight")
    return Layer(kind=kind, name=name, nodes=nodes, input=input, output=nodes[-1].outputs[0], weight=weight, bias=bias)


def _third(node: ir.Node) -> ir.Value | None:
    return node.inputs[2] if len(node.inputs) > 2 else None


def _data(value: ir.Value) -> ir.TensorProtocol:
    if value.const_value is None:
        raise ValueError(f"initializer {value.name} has no data: attach the weights to the master first")
    return value.const_value
