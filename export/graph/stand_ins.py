"""Convolutions that a pass has written as one node of our own, which no runtime knows.

What such a node stands for differs by whether the rows above and below a picture are zeros or a neighbouring band's, so
it is expanded once that is known: in a whole graph, or in a segment that was cut from one.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import onnx_ir as ir

from . import doubled_conv, patch_conv
from .layers import DOMAIN
from .nodes import InGraph, Nodes

_EXPAND: Final[Mapping[str, Callable[..., ir.Value]]] = {
    doubled_conv.DOUBLED_CONV: doubled_conv.expand,
    patch_conv.PATCH_CONV: patch_conv.expand,
}


def is_stand_in(node: ir.Node) -> bool:
    """Whether a node is one. Then it is a 3 × 3 convolution, of a picture that it makes `grow` times as large first."""
    return node.domain == DOMAIN and node.op_type in _EXPAND


def expand(node: ir.Node, inputs: Sequence[ir.Value | None], to: Nodes, *, rows: int) -> ir.Value:
    """What a stand-in of these inputs stands for; `rows` of zeros that are missing above and below, 0 or 1."""
    return _EXPAND[node.op_type](node, inputs, to, rows=rows)


def expand_all(graph: ir.Graph) -> None:
    """Put in the place of every stand-in of a whole graph what it stands for."""
    for node in list(graph):
        if is_stand_in(node):
            to = InGraph(graph, str(node.name))
            made = expand(node, node.inputs, to, rows=1)
            ir.convenience.replace_nodes_and_values(graph, node, [node], to.nodes, [node.outputs[0]], [made])
