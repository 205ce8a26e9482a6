"""Put branches into a master graph that compute only where something is given to them.

A branch adds to a value: `value + branch`, where the branch's input has any numbers, and `value` itself where it has
none. ONNX Runtime's `If` then copies the value once, and runs nothing of the branch. What is given is float32, as all
edges are; in a graph of halves it is brought to halves inside the branch.
"""

from collections.abc import Sequence

import onnx_ir as ir

from ...engine.specs import TensorSpec
from .tracing import ONNX_DTYPES

_DTYPES = {str(torch_dtype).removeprefix("torch."): onnx_dtype for torch_dtype, onnx_dtype in ONNX_DTYPES.items()}


class Opener:
    """One graph that is being opened. With `guarded` False branches always run: for what reads shapes and no `If`."""

    def __init__(self, graph: ir.Graph, *, guarded: bool = True) -> None:
        self.graph = graph
        self._guarded = guarded
        self._given: set[ir.Value] = set()

    def input(self, spec: TensorSpec) -> ir.Value:
        """A new input of the graph."""
        value = ir.Value(name=spec.name, shape=ir.Shape(spec.shape), type=ir.TensorType(_DTYPES[spec.dtype]))
        self.graph.inputs.append(value)
        self._given.add(value)
        return value

    def add(
        self,
        name: str,
        to: ir.Value,
        nodes: Sequence[ir.Node],
        *,
        given: ir.Value,
        axis: int,
        at: tuple[ir.Node, int] | None = None,
    ) -> None:
        """Add what the last of `nodes` makes to a value, wherever that is read, where `given` has a length on `axis`.

        `name` is the branch's, and must be its alone. The nodes may read any value that is there when `to` is; without
        any, `given` itself is added. `at`: only where this node reads it, as its input of that number.
        """
        users = list(to.uses()) if at is None else [at]
        edge = to.name if to.is_graph_output() and at is None else None
        behind = to.producer()
        assert behind is not None, "what a graph takes is no layer's output"
        for index, node in enumerate(nodes):
            node.name = f"{name}/{index}"
            node.outputs[0].name = f"{name}/{index}/value"
        total = ir.node("Add", [to, nodes[-1].outputs[0] if nodes else given], name=f"{name}/add")
        made = [*self._casts(name, to, [*nodes, total]), *nodes, total]
        if self._guarded:
            total.outputs[0].name = f"{name}/open"
            made = self._guard(name, to, made, given, axis)
        result = made[-1].outputs[0]
        result.name, result.shape, result.type = f"{name}/sum", to.shape, to.type
        for node, index in users:
            node.replace_input_with(index, result)
        if edge is not None:
            to.name = f"{name}/closed"
            result.name = edge
            self.graph.outputs[self.graph.outputs.index(to)] = result
        self.graph.insert_after(behind, made)

    def _casts(self, name: str, like: ir.Value, nodes: Sequence[ir.Node]) -> list[ir.Node]:
        """Nodes that bring what is given, where `nodes` read it, to the type of numbers that `like` has."""
        dtype, casts = like.dtype, dict[ir.Value, ir.Node]()
        for node in nodes:
            for index, value in enumerate(node.inputs):
                if value is None or value not in self._given or value.dtype == dtype:
                    continue
                if value not in casts:
                    assert dtype is not None, f"the type of {like.name} is not known"
                    cast = ir.node("Cast", [value], attributes={"to": dtype}, name=f"{name}/cast{len(casts)}")
                    cast.outputs[0].name = f"{cast.name}/value"
                    casts[value] = cast
                node.replace_input_with(index, casts[value].outputs[0])
        return list(casts.values())

    def _guard(self, name: str, value: ir.Value, nodes: list[ir.Node], given: ir.Value, axis: int) -> list[ir.Node]:
        length = ir.node("Shape", [given], attributes={"start": axis, "end": axis + 1}, name=f"{name}/length")
        some = ir.node("Cast", length.outputs, attributes={"to": ir.DataType.BOOL}, name=f"{name}/some")
        keep = ir.node("Identity", [value], name=f"{name}/keep")
        keep.outputs[0].name = f"{name}/kept"
        for output in (nodes[-1].outputs[0], keep.outputs[0]):
            output.type = value.type
        # Shapes are left open: those of the two would be merged, and the names of lengths differ.
        bodies = {
            "then_branch": ir.Graph([], [nodes[-1].outputs[0]], nodes=nodes, name=f"{name}/then"),
            "else_branch": ir.Graph([], [keep.outputs[0]], nodes=[keep], name=f"{name}/else"),
        }
        choose = ir.node("If", some.outputs, attributes=bodies, name=name)
        return [length, some, choose]
