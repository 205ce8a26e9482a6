"""One segment as a graph of its own: all that leads from kept values to another, for a band of rows.

What changes on the way: group norms become a factor and a summand of each channel, convolutions have no padding above
and below, since a band brings its neighbours' rows along (for one that halves those below alone), and what a
nearest-neighbour resize makes of those is cut to the one row on either side that a convolution needs. Beyond the
picture's edge values are full of zeros, and the summand is taken back there, so that a convolution sees the zeros that
it would be padded with.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from ...engine.bands.program import BFLOAT16, DEVIATION, MEAN, ROWS, SUM_MEAN, SUM_SQUARES, BandValue, Read, Segment
from ..graph.layers import MICROSOFT, MICROSOFT_VERSION
from ..graph.stand_ins import expand, is_stand_in
from .cut import ALONE, AROUND, ATTENTIONS, BELOW, Cuts, is_conv, reach, stored
from .norm import GroupNorm

Halo = tuple[int, int]
"""Rows of its neighbours that a value comes with, above and below."""
_IR_VERSION = 11
_OPSET = {"": 23, MICROSOFT: MICROSOFT_VERSION}
_TYPES = {
    "float32": ir.DataType.FLOAT,
    BFLOAT16: ir.DataType.BFLOAT16,
    "float16": ir.DataType.FLOAT16,
    "uint8": ir.DataType.UINT8,
}


@dataclass(frozen=True, eq=False, kw_only=True)
class Cut:
    """A segment, and its graph, whose weights are still those of the graph that it was cut from."""

    segment: Segment
    model: ir.Model


def cut_segment(value: ir.Value, cuts: Cuts, values: Mapping[str, BandValue], file: str) -> Cut:
    """The segment that gives a kept value; `ValueError` where one value would be needed with and without neighbours."""
    return _Builder(cuts, values).build(value, file)


@dataclass(eq=False)
class _Builder:
    cuts: Cuts
    values: Mapping[str, BandValue]
    nodes: list[ir.Node] = field(default_factory=list)
    made: dict[tuple[ir.Value, Halo], ir.Value] = field(default_factory=dict)
    """Value and how many of its neighbours' rows are needed → what has it here."""
    inputs: dict[str, ir.Value] = field(default_factory=dict)
    initializers: dict[str, ir.Value] = field(default_factory=dict)
    halos: dict[str, Halo] = field(default_factory=dict)
    norm: GroupNorm | None = None

    def build(self, value: ir.Value, file: str) -> Cut:
        name = str(value.name)
        out = self._node(value, ALONE)
        given = self._cast(out, BFLOAT16) if self.values[name].dtype == BFLOAT16 else out
        given.name = name
        outputs = [_typed(given, self.values[name])]
        outputs += self._sums(value, out) if self.values[name].norm else []
        segment = Segment(
            file=file,
            value=name,
            reads=tuple(Read(value=n, halo=halo[1], downward=halo == BELOW) for n, halo in self.halos.items()),
            norm=str(stored(self.norm.input).name) if self.norm else "",
        )
        graph = ir.Graph(
            list(self.inputs.values()),
            outputs,
            nodes=self.nodes,
            initializers=list(self.initializers.values()),
            opset_imports=dict(_OPSET),
            name=file,
        )
        return Cut(segment=segment, model=ir.Model(graph, ir_version=_IR_VERSION, producer_name="pocketxl"))

    def _value(self, value: ir.Value, halo: Halo) -> ir.Value:
        """The value here, with so many neighbouring rows."""
        if value in self.cuts.kept or value.is_graph_input():
            return self._made_of(value, halo)
        if value.is_initializer():
            return self._constant(value)
        return self._node(value, halo)

    def _node(self, value: ir.Value, halo: Halo) -> ir.Value:
        if (value, halo) not in self.made:
            norm = self.cuts.norms.get(value)
            if norm is not None:
                self.made[value, halo] = self._normed(norm, halo)
            else:
                node = value.producer()
                assert node is not None
                self.made[value, halo] = self._copied(node, halo)
        return self.made[value, halo]

    def _copied(self, node: ir.Node, halo: Halo) -> ir.Value:
        attributes = dict(node.attributes)
        inner = halo
        if is_conv(node) and reach(node).below:
            inner = (reach(node).above, reach(node).below)
            if halo != ALONE:
                raise ValueError(f"{node.name} is the second convolution of a segment")
            if not is_stand_in(node):
                attributes["pads"] = ir.AttrInt64s("pads", [0, inner[0], 0, inner[1]])  # columns as rows were
        inputs = [None if x is None else self._value(x, inner) for x in node.inputs]
        if node.op_type in ATTENTIONS:
            return self._attention(node, inputs)
        if is_stand_in(node):
            return expand(node, inputs, self, rows=0)
        if node.op_type != "Resize":
            return self.emit(node.op_type, inputs, node.domain, **attributes)
        # Of the two rows that a neighbour's became, one is wanted.
        grown = self.emit("Resize", inputs, node.domain, **attributes)
        if halo != AROUND:
            raise ValueError(f"{node.name} does not lead to a convolution")
        ends = [self.number(n, [x]) for n, x in (("crop.first", 1), ("crop.end", -1), ("crop.axis", 2))]
        return self.emit("Slice", [grown, *ends])

    def _attention(self, node: ir.Node, inputs: list[ir.Value | None]) -> ir.Value:
        """Of a band's pixels to all: two products and a softmax, which fit one head of 512 and any chunk of queries."""
        key = inputs[1]
        heads = node.attributes.get_int(ATTENTIONS[node.op_type], 0)
        if heads != 1 or any(x is not None for x in inputs[3:]) or key is None:
            raise ValueError(f"{node.name} has several heads, a bias or a mask, which has no bands")
        if node.op_type == "Attention":
            return self.emit("Attention", inputs, **node.attributes)
        width = self.values[str(key.name)].channels
        scale = node.attributes.get_float("scale", width**-0.5)
        scores = self.emit(
            "FusedMatMul", inputs[:2], MICROSOFT,
            transB=ir.AttrInt64("transB", 1), alpha=ir.AttrFloat32("alpha", scale),
        )  # fmt: skip
        return self.emit("MatMul", [self.emit("Softmax", [scores], axis=ir.AttrInt64("axis", -1)), inputs[2]])

    def _normed(self, norm: GroupNorm, halo: Halo) -> ir.Value:
        if self.norm is not None and self.norm is not norm:
            raise ValueError(f"{norm.output.name} is the second norm of a segment")
        self.norm = norm
        source, channels = stored(norm.input), self.values[str(stored(norm.input).name)].channels
        mean, deviation = (self._input(n, ir.DataType.FLOAT, [channels]) for n in (MEAN, DEVIATION))
        gain, bias = (self._parameter(value) for value in (norm.gain, norm.bias))
        factor = self.emit("Mul", [deviation, gain])
        summand = self.emit("Sub", [bias, self.emit("Mul", [mean, factor])])
        column = self.number("column", [1, channels, 1, 1])
        summand = self.emit("Reshape", [summand, column])
        if halo != ALONE:
            rows = _rows(self.values[str(source.name)], halo)
            inside = self._input(ROWS, ir.DataType.FLOAT, [1, 1, rows, 1])
            summand = self.emit("Mul", [summand, inside])
        if self.values[str(source.name)].dtype != "uint8":
            factor = self.emit("Reshape", [factor, column])
            scaled = self.emit("Mul", [self._floats(self._value(source, halo), source), factor])
        else:  # one pass for the bytes' scale and the norm's factor
            dequantize = norm.input.producer()
            assert dequantize is not None
            scale, zeros = (self._constant(x) for x in dequantize.inputs[1:3] if x is not None)
            factors = self.emit("Mul", [factor, scale])
            scaled = self.emit(
                "DequantizeLinear", [self._value(source, halo), factors, zeros], axis=ir.AttrInt64("axis", 1)
            )
        return self.emit("Add", [scaled, summand])

    def _sums(self, value: ir.Value, out: ir.Value) -> list[ir.Value]:
        """Each channel's mean over the band, and the mean of the squared deviations from it."""
        norm = self.cuts.norm_of(value)
        assert norm is not None
        floats = self._floats(out, value)
        if self.values[str(value.name)].dtype == "uint8":
            dequantize = norm.input.producer()
            assert dequantize is not None
            numbers = [self._constant(x) for x in dequantize.inputs[1:3] if x is not None]
            floats = self.emit("DequantizeLinear", [out, *numbers], axis=ir.AttrInt64("axis", 1))
        axes = self.number("sum.axes", [0, 2, 3])
        mean = self.emit("ReduceMean", [floats, axes], keepdims=ir.AttrInt64("keepdims", 1))
        apart = self.emit("Sub", [floats, mean])
        squares = self.emit(
            "ReduceMean", [self.emit("Mul", [apart, apart]), axes], keepdims=ir.AttrInt64("keepdims", 0)
        )
        found = []
        for name, sums in (
            (SUM_MEAN, self.emit("Reshape", [mean, self.number("sum.flat", [-1])])),
            (SUM_SQUARES, squares),
        ):
            sums.name, sums.type = name, ir.TensorType(ir.DataType.FLOAT)
            sums.shape = ir.Shape([self.values[str(value.name)].channels])
            found.append(sums)
        return found

    def _parameter(self, value: ir.Value) -> ir.Value:
        """A norm's own, in float32."""
        constant = self._constant(value)
        if value.dtype != ir.DataType.FLOAT16:
            return constant
        return self._cast(constant, "float32")

    def _floats(self, here: ir.Value, value: ir.Value) -> ir.Value:
        """A kept value in float32, in which norms are computed."""
        if self.values[str(value.name)].dtype != "float16":
            return here
        return self._cast(here, "float32")

    def _cast(self, here: ir.Value, dtype: str) -> ir.Value:
        return self.emit("Cast", [here], to=ir.AttrInt64("to", _TYPES[dtype]))

    def _made_of(self, value: ir.Value, halo: Halo) -> ir.Value:
        """A kept value as the graph computes with it."""
        read = self._read(value, halo)
        if self.values[str(value.name)].dtype != BFLOAT16:
            return read
        if (value, halo) not in self.made:
            self.made[value, halo] = self._cast(read, "float32")
        return self.made[value, halo]

    def _read(self, value: ir.Value, halo: Halo) -> ir.Value:
        name = str(value.name)
        if self.halos.setdefault(name, halo) != halo:
            raise ValueError(f"{name} is needed with and without its neighbours' rows in one segment")
        if name not in self.inputs:
            self.inputs[name] = _typed(ir.Value(name=name), self.values[name], halo)
        return self.inputs[name]

    def _input(self, name: str, dtype: ir.DataType, shape: list[int | str]) -> ir.Value:
        if name not in self.inputs:
            self.inputs[name] = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))
        return self.inputs[name]

    def _constant(self, value: ir.Value) -> ir.Value:
        name = str(value.name)
        if name not in self.initializers:
            self.initializers[name] = ir.Value(
                name=name, shape=value.shape, type=value.type, const_value=value.const_value
            )
        return self.initializers[name]

    def number(self, name: str, numbers: list[int]) -> ir.Value:
        """See `Nodes`."""
        tensor = ir.Tensor(np.array(numbers, np.int64), name=name)
        if name not in self.initializers:
            self.initializers[name] = ir.Value(
                name=name, shape=ir.Shape([len(numbers)]), type=ir.TensorType(ir.DataType.INT64), const_value=tensor
            )
        return self.initializers[name]

    def emit(self, op: str, inputs: list[ir.Value | None], domain: str = "", /, **attributes: ir.Attr) -> ir.Value:
        """See `Nodes`."""
        node = ir.Node(domain, op, inputs, attributes=list(attributes.values()), name=f"{op}.{len(self.nodes)}")
        node.outputs[0].name = f"{op}.{len(self.nodes)}:0"
        self.nodes.append(node)
        return node.outputs[0]


def _typed(value: ir.Value, of: BandValue, halo: Halo = ALONE) -> ir.Value:
    """With the type and shape that it has at every band, with rows of its neighbours."""
    value.type = ir.TensorType(_TYPES[of.dtype])
    shape = [1, f"tokens.{of.scale}", of.channels] if of.tokens else [1, of.channels, _rows(of, halo), _columns(of)]
    value.shape = ir.Shape(shape)
    return value


def _rows(of: BandValue, halo: Halo) -> str:
    """A length's name: equal lengths have one, so that a compiler need not think of broadcasts."""
    return f"rows.{of.scale}.{'below' if halo == BELOW else halo[1]}"


def _columns(of: BandValue) -> str:
    return f"columns.{of.scale}"
