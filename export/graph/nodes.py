"""Nodes that are being added: to a graph, or to the segment of one that is being cut."""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import onnx_ir as ir

from .layers import add_initializer


class Nodes(Protocol):
    """The graph that is being made."""

    def emit(self, op: str, inputs: list[ir.Value | None], domain: str = "", /, **attributes: ir.Attr) -> ir.Value:
        """Add a node; its output."""

    def number(self, name: str, numbers: list[int]) -> ir.Value:
        """Those int64 numbers, under a name that stands for them."""


@dataclass(eq=False)
class InGraph:
    """For a place in a whole graph: `nodes` are to be inserted there, in order; their names begin with `name`."""

    graph: ir.Graph
    name: str
    nodes: list[ir.Node] = field(default_factory=list)

    def emit(self, op: str, inputs: list[ir.Value | None], domain: str = "", /, **attributes: ir.Attr) -> ir.Value:
        """See `Nodes`."""
        name = f"{self.name}/{op}.{len(self.nodes)}"
        node = ir.Node(domain, op, inputs, attributes=list(attributes.values()), name=name)
        node.outputs[0].name = f"{name}:0"
        self.nodes.append(node)
        return node.outputs[0]

    def number(self, name: str, numbers: list[int]) -> ir.Value:
        """See `Nodes`."""
        return add_initializer(self.graph, ir.Tensor(np.array(numbers, np.int64), name=name))
