"""A linear layer whose output is only cut in two (GEGLU) → two linear layers: no copy of the wide activation."""

import numpy as np
import onnx_ir as ir

from ..quantize.formats import Kind
from .layers import Layer, add_initializer, find_layers, only_user


def split_linear(graph: ir.Graph) -> None:
    """Rewrite every `linear → Split(last axis, equal parts)`; the parts are named `<layer>.0`, `<layer>.1`."""
    for layer in find_layers(graph):
        split = only_user(layer.output) if layer.kind is Kind.LINEAR else None
        if split is not None and split.op_type == "Split" and _equal_parts(layer, split):
            _rewrite(graph, layer, split)


def _equal_parts(layer: Layer, split: ir.Node) -> bool:
    width, parts = int(layer.weight_data().shape[0]), len(split.outputs)
    if split.attributes.get_int("axis", 0) != -1 or width % parts:
        return False
    if len(split.inputs) < 2 or split.inputs[1] is None:
        return True
    sizes = ir.convenience.get_const_tensor(split.inputs[1])
    return sizes is not None and sizes.numpy().tolist() == [width // parts] * parts


def _rewrite(graph: ir.Graph, layer: Layer, split: ir.Node) -> None:
    nodes, outputs = [], []
    for index in range(len(split.outputs)):
        name = f"{layer.name}.{index}"
        weight = add_initializer(graph, _rows(layer.weight_data(), index, len(split.outputs), f"{name}.weight"))
        transposed = ir.node("Transpose", [weight], attributes={"perm": [1, 0]}, name=f"{name}/transpose")
        product = ir.node("MatMul", [layer.input, transposed.outputs[0]], name=name)
        nodes += [transposed, product]
        if (bias := layer.bias_data()) is not None:
            part = add_initializer(graph, _rows(bias, index, len(split.outputs), f"{name}.bias"))
            nodes.append(ir.node("Add", [product.outputs[0], part], name=f"{name}/bias"))
        outputs.append(nodes[-1].outputs[0])
    ir.convenience.replace_nodes_and_values(
        graph, layer.nodes[0], [split, *reversed(layer.nodes)], nodes, list(split.outputs), outputs
    )


def _rows(tensor: ir.TensorProtocol, index: int, parts: int, name: str) -> ir.LazyTensor:
    """Part `index` of the first axis."""
    length = int(tensor.shape[0]) // parts
    shape = ir.Shape([length, *(int(d) for d in tuple(tensor.shape)[1:])])

    def compute() -> ir.Tensor:
        return ir.Tensor(np.ascontiguousarray(tensor.numpy()[index * length : (index + 1) * length]), name=name)

    return ir.LazyTensor(compute, dtype=tensor.dtype, shape=shape, name=name)
