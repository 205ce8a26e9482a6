"""`Transpose(initializer)` → a transposed initializer, so that loading the model does not copy its weights."""

import numpy as np
import onnx_ir as ir

from .layers import add_initializer


def fold_transpose(graph: ir.Graph) -> None:
    """Fold every transpose whose input is an initializer; the data stays lazy."""
    for node in list(graph):
        source = node.inputs[0] if node.op_type == "Transpose" else None
        if source is None or not source.is_initializer() or source.const_value is None:
            continue
        folded = add_initializer(graph, _transposed(source.const_value, list(node.attributes.get_ints("perm", []))))
        ir.convenience.replace_all_uses_with(node.outputs[0], folded)
        graph.remove(node, safe=True)


def _transposed(tensor: ir.TensorProtocol, perm: list[int]) -> ir.LazyTensor:
    axes = perm or list(range(len(tensor.shape)))[::-1]
    shape = ir.Shape([int(tuple(tensor.shape)[axis]) for axis in axes])
    name = f"{tensor.name}.transposed"

    def compute() -> ir.Tensor:
        return ir.Tensor(np.ascontiguousarray(tensor.numpy().transpose(axes)), name=name)

    return ir.LazyTensor(compute, dtype=tensor.dtype, shape=shape, name=name)
