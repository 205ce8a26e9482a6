"""Where a lowered graph is cut: which of its values are kept for the whole picture, and which are computed on the way.

Kept are: what a group norm is applied to, since its statistics must be known before; attention's keys and values, which
every pixel sees; what a 3 × 3 convolution takes without a norm before it; what the graph gives, before it is parted;
and the bytes that a convolution takes, which are a quarter of the numbers they are made of, so that no row is made
twice for its neighbours. A segment is all that leads to one kept value from others, so that it has one such
convolution, and what it reads beyond the picture's edge can be made zeros. Of what `DequantizeLinear` makes, its bytes
are kept, and of what is cast for a norm, its halves.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from ..graph.stand_ins import is_stand_in
from .norm import GroupNorm, group_norms

CONVOLUTIONS = {"Conv": 1, "QLinearConv": 3}
"""Operator → which of its inputs is the weight."""
_Padding = tuple[tuple[int, ...], tuple[int, ...], int]
ATTENTIONS = {"Attention": "q_num_heads", "MultiHeadAttention": "num_heads"}
"""Operator → its attribute for the number of heads; keys and values are the inputs behind the queries."""
# Zeros stay zeros, and numbers stay in their rows.
_KEEPS_ZERO = {"Cast", "QuickGelu", "QuantizeLinear", "Resize"}


@dataclass(frozen=True, kw_only=True)
class Reach:
    """How many rows beyond its own a convolution takes, and how many rows of its input are one of its output."""

    above: int
    below: int
    stride: int = 1


ALONE, AROUND, BELOW = (0, 0), (1, 1), (0, 1)
"""Rows of its neighbours, above and below, that a band of a value comes with."""
_REACHES: Mapping[_Padding, Reach] = {
    ((1, 1), (0, 0, 0, 0), 1): Reach(above=0, below=0),
    ((3, 3), (1, 1, 1, 1), 1): Reach(above=1, below=1),
    ((3, 3), (0, 0, 1, 1), 2): Reach(above=0, below=1, stride=2),
}
"""Kernel, padding and stride."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Cuts:
    """Kept values in running order, and the group norms by what they give."""

    kept: tuple[ir.Value, ...]
    norms: Mapping[ir.Value, GroupNorm]
    whole: frozenset[ir.Value]
    """Those of `kept` that every band reads as a whole."""
    end: ir.Value
    """That of `kept` which has all that the graph gives."""

    def norm_of(self, value: ir.Value) -> GroupNorm | None:
        """The norm that is applied to a kept value."""
        return next((norm for norm in self.norms.values() if stored(norm.input) is value), None)


def find_cuts(graph: ir.Graph) -> Cuts:
    """The cuts of a graph of convolutions, group norms and attention; `ValueError` for what cannot be cut."""
    norms = {norm.output: norm for norm in group_norms(graph)}
    kept = {stored(norm.input) for norm in norms.values()}
    whole = set()
    for node in graph:
        if node.op_type in ATTENTIONS:
            whole |= {value for value in node.inputs[1:3] if value is not None}
        if is_conv(node) and reach(node).below:
            cut = _before(node, norms)
            kept |= {cut} if cut is not None else set()
    end = _end(graph)
    kept |= whole | {end}
    ordered = [value for node in graph for value in node.outputs if value in kept]
    return Cuts(kept=tuple(ordered), norms=norms, whole=frozenset(whole), end=end)


def stored(value: ir.Value) -> ir.Value:
    """What is kept of a value: the bytes or halves that it is made of, if it is."""
    producer = value.producer()
    if producer is not None and producer.op_type in ("Cast", "DequantizeLinear") and producer.inputs[0] is not None:
        return producer.inputs[0]
    return value


def is_conv(node: ir.Node) -> bool:
    """Whether a node is a convolution, in whichever form."""
    return is_stand_in(node) or node.op_type in CONVOLUTIONS


def reach(node: ir.Node) -> Reach:
    """What a convolution takes beyond its own rows; `ValueError` for one of another kind."""
    if is_stand_in(node):
        return Reach(above=1, below=1)
    kernel = tuple(node.attributes.get_ints("kernel_shape", []))
    pads = tuple(node.attributes.get_ints("pads", [0] * 4))
    strides = set(node.attributes.get_ints("strides", [1]))
    found = _REACHES.get((kernel, pads, strides.pop())) if len(strides) == 1 else None
    if found is None:
        raise ValueError(f"{node.name} is a convolution of {kernel} with pads {pads}, which has no bands")
    return found


def _end(graph: ir.Graph) -> ir.Value:
    """The graph's output; of several that are parts of one value, in order, that value."""
    if len(graph.outputs) == 1:
        return graph.outputs[0]
    parts = [_before_cast(value) for value in graph.outputs]
    node = parts[0].producer()
    source = node.inputs[0] if node is not None and node.op_type == "Split" else None
    if node is None or source is None or list(node.outputs) != parts:
        raise ValueError("a graph of several outputs has bands only where these are parts of one value")
    return source


def _before_cast(value: ir.Value) -> ir.Value:
    """What an output is made of, where it is only another type of that."""
    node = value.producer()
    source = node.inputs[0] if node is not None and node.op_type == "Cast" else None
    return value if source is None else source


def _before(node: ir.Node, norms: Mapping[ir.Value, GroupNorm]) -> ir.Value | None:
    """Where to cut before a convolution: at its input's bytes, or its floats where it has none and no norm either."""
    value, quantized = node.inputs[0], None
    while value is not None and value not in norms and not value.is_graph_input():
        producer = value.producer()
        if producer is None or not (producer.op_type in _KEEPS_ZERO or _is_silu(producer)):
            return quantized or stored(value)
        if producer.op_type == "QuantizeLinear":
            quantized = value
        value = producer.inputs[0]
    return quantized


def _is_silu(node: ir.Node) -> bool:
    """Whether a node multiplies a value by its own sigmoid."""
    x, gate = (*node.inputs, None, None)[:2]
    producer = None if gate is None else gate.producer()
    return node.op_type == "Mul" and producer is not None and producer.op_type == "Sigmoid" and producer.inputs[0] is x
