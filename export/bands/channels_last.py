"""A segment's graph with the channels of a pixel beside each other: `[1, rows, columns, channels]` at its edge.

What is done to single numbers is done in that order. Operators whose axes have a meaning (convolutions, resizes) stay
as they were, behind a transpose: a compiler whose convolutions have their channels last anyway takes that for what it
is, nothing at all.
"""

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from ...engine.bands.program import FIRST, LAST
from ..graph.layers import only_user

_SINGLE = {"Add", "Cast", "DequantizeLinear", "Div", "Mul", "QuantizeLinear", "Sigmoid", "Sub"}
_GIVES_PICTURES = {"Conv", "DepthToSpace", "Resize"}
_KEEPS_PICTURES = {"Concat", "Slice"}
_COMMUTES = {"Resize", "Slice"}


def channels_last(graph: ir.Graph) -> None:
    """Rewrite a segment; `ValueError` for a constant along other axes than channels."""
    _Rewriter(graph).run()
    quantize_early(graph)


def quantize_early(graph: ir.Graph) -> None:
    """Quantize before a nearest-neighbour resize instead of after it: exact, a quarter of the numbers.

    With the channels' factors before it, if it has some.
    """
    for node in list(graph):
        if (node.op_type == "QuantizeLinear" and _rank(node.inputs[1]) == 0) or _scales(node):
            while _swapped(node, node.inputs[0]):
                pass


def _scales(node: ir.Node) -> bool:
    """Whether a node multiplies by a constant for each channel."""
    factors = node.inputs[1] if node.op_type == "Mul" else None
    return factors is not None and factors.const_value is not None


def _swapped(node: ir.Node, value: ir.Value | None) -> bool:
    """Whether a node that treats all numbers alike could be put before the one that its input comes from."""
    before = None if value is None else value.producer()
    if before is None:
        return False
    copies = before.op_type in _COMMUTES and before.attributes.get_string("mode", "nearest") == "nearest"
    if not copies or only_user(before.outputs[0]) != node:
        return False
    graph, made, moved, like = node.graph, node.outputs[0], before.outputs[0], node.inputs[-1]
    assert isinstance(graph, ir.Graph)
    ir.convenience.replace_all_uses_with(made, moved)
    node.replace_input_with(0, before.inputs[0])
    before.replace_input_with(0, made)
    made.dtype = moved.dtype = None if like is None else like.dtype  # the zero point's, or the factors'
    graph.remove(node)
    graph.insert_before(before, node)
    return True


@dataclass(eq=False)
class _Rewriter:
    graph: ir.Graph
    last: dict[ir.Value, ir.Value] = field(default_factory=dict)
    """A picture, as whoever made it gives it → the same with its channels last."""
    first: dict[ir.Value, ir.Value] = field(default_factory=dict)
    """The same with its channels before rows."""

    def run(self) -> None:
        for value in self.graph.inputs:
            if value.shape is not None and len(value.shape) == 4:
                value.shape = ir.Shape([value.shape[axis] for axis in LAST])
                self.last[value] = value
        for node in list(self.graph):
            self._node(node)
        for index, value in enumerate(self.graph.outputs):
            if self._is_picture(value):
                self.graph.outputs[index] = self._output(value)

    def _node(self, node: ir.Node) -> None:
        pictures = [value for value in node.inputs if value is not None and self._is_picture(value)]
        if node.op_type in _SINGLE and pictures:
            # What a convolution gives stays as it was: at the graph's end it is turned for nothing, in between not.
            turned = any(value in self.first and value not in self.last for value in pictures)
            self._single(node, pictures, self.first if turned else self.last)
        elif node.op_type == "Reshape" and self._column(node):
            self.last[node.outputs[0]] = node.outputs[0]
        elif node.op_type == "ReduceMean" and pictures:
            node.replace_input_with(0, self._as(pictures[0], self.first))
            if node.attributes.get_int("keepdims", 1):
                self.first[node.outputs[0]] = node.outputs[0]
        else:
            for index, value in enumerate(node.inputs):
                if value in pictures:
                    node.replace_input_with(index, self._as(value, self.first))
            if node.op_type in _GIVES_PICTURES or (pictures and node.op_type in _KEEPS_PICTURES) or self._four(node):
                self.first[node.outputs[0]] = node.outputs[0]

    def _single(self, node: ir.Node, pictures: list[ir.Value], to: dict[ir.Value, ir.Value]) -> None:
        for index, value in enumerate(node.inputs):
            if value in pictures:
                node.replace_input_with(index, self._as(value, to))
            elif value is not None and to is self.last:
                node.replace_input_with(index, self._channels(value))
        to[node.outputs[0]] = node.outputs[0]

    def _column(self, node: ir.Node) -> bool:
        """Whether a node lays out a number for each channel; then it does so along the last axis from now on."""
        lengths = None if node.inputs[1] is None else node.inputs[1].const_value
        if lengths is None or lengths.size != 4 or sorted(lengths.numpy())[:3] != [1, 1, 1]:
            return False
        name = f"{node.inputs[1].name}.last"
        if name not in self.graph.initializers:
            self._initializer(name, lengths.numpy()[list(LAST)])
        node.replace_input_with(1, self.graph.initializers[name])
        return True

    def _is_picture(self, value: ir.Value) -> bool:
        return value in self.last or value in self.first

    def _four(self, node: ir.Node) -> bool:
        """Whether a node lays out numbers along four axes."""
        if node.op_type != "Reshape" or node.inputs[1] is None:
            return False
        lengths, producer = node.inputs[1], node.inputs[1].producer()
        if producer is None:
            return lengths.shape is not None and lengths.shape[0] == 4
        return producer.op_type == "Shape" and producer.inputs[0] in self.first

    def _as(self, value: ir.Value | None, to: dict[ir.Value, ir.Value]) -> ir.Value:
        assert value is not None
        if value not in to:
            perm = LAST if to is self.last else FIRST
            node = ir.Node("", "Transpose", [value], attributes=[ir.AttrInt64s("perm", perm)])
            node.name, node.outputs[0].name = (f"{value.name}/{axes}" for axes in ("turn", "turned"))
            if value.dtype is not None:
                node.outputs[0].dtype = value.dtype
            self._behind(value, node)
            to[value] = to[node.outputs[0]] = node.outputs[0]
            (self.first if to is self.last else self.last)[node.outputs[0]] = value
        return to[value]

    def _channels(self, value: ir.Value) -> ir.Value:
        """A constant that meets a picture, and so has a number for all or one for each channel."""
        if value.const_value is None or _rank(value) == 0:
            return value
        numbers = value.const_value.numpy()
        if numbers.ndim < 3 or numbers.shape[-3] != numbers.size:
            raise ValueError(f"{value.name} has the shape {numbers.shape}, which is none of channels")
        name = f"{value.name}.channels"
        if name not in self.graph.initializers:
            self._initializer(name, numbers.reshape(-1))
        return self.graph.initializers[name]

    def _output(self, value: ir.Value) -> ir.Value:
        name, shape, new = str(value.name), value.shape, self._as(value, self.last)
        assert shape is not None
        value.name = f"{name}/first"
        new.name, new.type, new.shape = name, value.type, ir.Shape([shape[axis] for axis in LAST])
        return new

    def _behind(self, value: ir.Value, node: ir.Node) -> None:
        producer = value.producer()
        if producer is None:
            self.graph.insert_before(self.graph[0], node)
        else:
            self.graph.insert_after(producer, node)

    def _initializer(self, name: str, numbers: np.ndarray) -> None:
        tensor = ir.Tensor(numbers, name=name)
        self.graph.register_initializer(
            ir.Value(name=name, shape=ir.Shape(numbers.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        )


def _rank(value: ir.Value | None) -> int | None:
    return None if value is None or value.shape is None else len(value.shape)
