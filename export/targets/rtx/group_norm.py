"""The master's group norms → `GroupNormalization` in half precision, so that SiLU fuses into them.

The master computes norms in float32 between casts. TensorRT for RTX keeps those casts: it writes float32, and a second
kernel reads it, applies SiLU and rounds (`CastGnor`, `CastSilu`). Without them it makes one kernel that reads and
writes halves (`SiluGnor`); mean and variance are float32 in it, as in ONNX's own definition (`stash_type` 1). Layer
norms keep their casts: with them or without, each is one kernel that computes in float32.
"""

from dataclasses import dataclass

import onnx_ir as ir

from ...graph.layers import only_user


@dataclass(frozen=True, kw_only=True)
class _Norm:
    """A group norm as the master writes it; `nodes` in their order."""

    nodes: tuple[ir.Node, ...]
    x: ir.Value
    scale: ir.Value
    offset: ir.Value
    groups: int
    epsilon: float


def group_norm(graph: ir.Graph) -> None:
    """Rewrite every `Cast → Reshape → InstanceNormalization → Reshape → Mul → Add → Cast`; other norms stay.

    Scale and offset get the type of what is normalised. They must not have data yet (see `graph.master.attach`).
    """
    for node in list(graph):
        if node.op_type == "InstanceNormalization" and (norm := _match(node)) is not None:
            fused = ir.node(
                "GroupNormalization",
                [norm.x, norm.scale, norm.offset],
                attributes={"num_groups": norm.groups, "epsilon": norm.epsilon, "stash_type": 1},
                name=node.name,
            )
            for parameter in (norm.scale, norm.offset):
                assert parameter.const_value is None, f"{parameter.name} has data already"
                parameter.dtype = norm.x.dtype
            last = norm.nodes[-1]
            ir.convenience.replace_nodes_and_values(
                graph, last, list(reversed(norm.nodes)), [fused], [last.outputs[0]], [fused.outputs[0]]
            )


def _match(node: ir.Node) -> _Norm | None:
    reshape = _producer(node.inputs[0], "Reshape")
    cast = None if reshape is None else _producer(reshape.inputs[0], "Cast")
    back = _user(node, "Reshape")
    mul = None if back is None else _user(back, "Mul")
    add = None if mul is None else _user(mul, "Add")
    narrow = None if add is None else _user(add, "Cast")
    if cast is None or reshape is None or back is None or mul is None or add is None or narrow is None:
        return None
    x, scale, offset = cast.inputs[0], _column(mul), _column(add)
    if x is None or scale is None or offset is None or narrow.outputs[0].dtype != x.dtype:
        return None
    ones = ir.convenience.get_const_tensor(node.inputs[1]) if node.inputs[1] is not None else None
    return None if ones is None else _Norm(
        nodes=(cast, reshape, node, back, mul, add, narrow),
        x=x,
        scale=scale,
        offset=offset,
        groups=int(ones.size),
        epsilon=node.attributes.get_float("epsilon", 1e-5),
    )  # fmt: skip


def _producer(value: ir.Value | None, op: str) -> ir.Node | None:
    """The node that makes a value for one user only, if it is such an operator."""
    node = None if value is None or only_user(value) is None else value.producer()
    return node if node is not None and node.op_type == op else None


def _user(node: ir.Node, op: str) -> ir.Node | None:
    user = only_user(node.outputs[0])
    return user if user is not None and user.op_type == op else None


def _column(node: ir.Node) -> ir.Value | None:
    """The parameter that is broadcast over height and width."""
    unsqueeze = None if node.inputs[1] is None else node.inputs[1].producer()
    value = unsqueeze.inputs[0] if unsqueeze is not None and unsqueeze.op_type == "Unsqueeze" else None
    return value if value is not None and value.is_initializer() else None
