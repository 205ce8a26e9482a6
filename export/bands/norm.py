"""Group norms as the master writes them: `Reshape`, `InstanceNormalization`, `Reshape`, then `Mul` and `Add`."""

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from ...engine.bands.program import Norm
from ..graph.layers import only_user


@dataclass(frozen=True, eq=False, kw_only=True)
class GroupNorm:
    """What is normalised, what comes out, and the numbers that shape it."""

    input: ir.Value
    output: ir.Value
    gain: ir.Value
    """The initializer `[channels]`; likewise the next."""
    bias: ir.Value
    norm: Norm


def group_norms(graph: ir.Graph) -> Iterator[GroupNorm]:
    """Every group norm; `ValueError` for an `InstanceNormalization` that is none."""
    for node in graph:
        if node.op_type == "InstanceNormalization":
            yield _group_norm(node)


def _group_norm(node: ir.Node) -> GroupNorm:
    ones = node.inputs[1]
    grouped = node.inputs[0].producer() if node.inputs[0] is not None else None
    shaped = _user(node, "Reshape")
    scaled = _user(shaped, "Mul")
    shifted = _user(scaled, "Add")
    if grouped is None or ones is None or ones.shape is None or grouped.inputs[0] is None:
        raise ValueError(f"{node.name} is no group norm")
    return GroupNorm(
        input=grouped.inputs[0],
        output=shifted.outputs[0],
        gain=_parameter(scaled),
        bias=_parameter(shifted),
        norm=Norm(groups=int(ones.shape[0]), epsilon=node.attributes.get_float("epsilon", 1e-5)),
    )


def _user(node: ir.Node, op: str) -> ir.Node:
    user = only_user(node.outputs[0])
    if user is None or user.op_type != op:
        raise ValueError(f"{node.name} is followed by {user and user.op_type}, in a group norm by {op}")
    return user


def _parameter(node: ir.Node) -> ir.Value:
    """The initializer behind the `Unsqueeze` that a `Mul` or `Add` takes."""
    for value in node.inputs:
        producer = value.producer() if value is not None else None
        if producer is not None and producer.op_type == "Unsqueeze":
            found = producer.inputs[0]
            if found is not None and found.is_initializer():
                return found
    raise ValueError(f"{node.name} takes no parameter of a group norm")
