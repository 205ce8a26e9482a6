"""A convolution of a doubled picture as four of the picture itself: 16 products in place of 36 for each pixel.

Behind a nearest-neighbour doubling a 3 × 3 kernel sees but 2 × 2 different pixels, other taps of it for pixels of even
and odd rows and columns; added up, they are four kernels, whose answers take turns. Of the products of SDXL's decoder
29 % are behind doublings. Exact but for the rounding of sums.

A pass writes such a layer as one node, `DoubledConv`; see `stand_ins`. The four are parts of the layer (`conv.0` to
`conv.3`), which have its format and its input's scales if they get one later.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum

import numpy as np
import onnx_ir as ir

from .doubling import doubled_input
from .layers import DOMAIN, Layer, add_initializer, replace_layer
from .nodes import Nodes
from .patch_conv import cornered

DOUBLED_CONV = "DoubledConv"
_PARITIES = ((0, 0), (0, 1), (1, 0), (1, 1))
"""Of the rows and columns of the four convolutions, in the order of their weights."""


class Turns(StrEnum):
    """How pixels of the four answers are put in turn. Each is fast on one runtime, and slow on the other."""

    DEPTH_TO_SPACE = "DepthToSpace"
    """OpenVINO: 185 ms with the convolutions for 239. ONNX Runtime took as long for it as for the convolutions."""
    CONCAT = "Concat"
    """ONNX Runtime: 160 ms with the convolutions for 205 (512 channels, 64 × 64 to 128 × 128, two cores)."""


def doubled_convs(graph: ir.Graph, layers: Iterable[Layer], turns: Turns) -> None:
    """Write those of these layers, none of which is rounded yet, that are such convolutions as `DoubledConv`."""
    for layer in layers:
        small = doubled_input(layer) if _usual(layer) else None
        if small is not None:
            replace_layer(graph, layer, [_doubled_conv(graph, layer, small, turns)])


def expand(node: ir.Node, inputs: Sequence[ir.Value | None], to: Nodes, *, rows: int) -> ir.Value:
    """What a `DoubledConv` of these inputs stands for; `rows` of zeros that are missing above and below, 0 or 1."""
    small, *weights = inputs[: 1 + len(_PARITIES)]
    bias = inputs[1 + len(_PARITIES) :]
    # Even rows see the row above, odd ones that below.
    above, below = (small, small) if rows else (_rows(small, 0, -1, to), _rows(small, 1, None, to))
    answers = []
    for weight, (row, column) in zip(weights, _PARITIES, strict=True):
        pads = [rows * (1 - row), 1 - column, rows * row, column]
        answers.append(
            to.emit(
                "Conv",
                [below if row else above, weight, *bias],
                kernel_shape=ir.AttrInt64s("kernel_shape", [2, 2]),
                pads=ir.AttrInt64s("pads", pads),
            )
        )
    if node.attributes.get_string("turns", "") == Turns.DEPTH_TO_SPACE:
        together = to.emit("Concat", list(answers), axis=ir.AttrInt64("axis", 1))
        return to.emit("DepthToSpace", [together], blocksize=ir.AttrInt64("blocksize", 2))
    return _in_turn(answers, to)


def _rows(value: ir.Value | None, start: int, end: int | None, to: Nodes) -> ir.Value:
    numbers = [start, np.iinfo(np.int64).max if end is None else end, 2]
    return to.emit("Slice", [value, *(to.number(f"double.{n}", [n]) for n in numbers)])


def _in_turn(answers: Sequence[ir.Value], to: Nodes) -> ir.Value:
    """Four of `[n, c, h, w]` → `[n, c, 2 · h, 2 · w]`."""
    last, joined = to.number("double.4", [4]), to.number("double.joined", [0, 0, 0, -1])
    lines = []
    for pair in (answers[:2], answers[2:]):
        columns = [to.emit("Unsqueeze", [answer, last]) for answer in pair]
        both = to.emit("Concat", list(columns), axis=ir.AttrInt64("axis", 4))
        lines.append(to.emit("Reshape", [both, joined]))
    width = to.emit("Shape", [lines[0]], start=ir.AttrInt64("start", 3), end=ir.AttrInt64("end", 4))
    shape = to.emit("Concat", [to.number("double.lines", [0, 0, -1]), width], axis=ir.AttrInt64("axis", 0))
    # An even row and its odd neighbour are one of twice the width.
    return to.emit("Reshape", [to.emit("Concat", list(lines), axis=ir.AttrInt64("axis", 3)), shape])


def _usual(layer: Layer) -> bool:
    """Whether it is 3 × 3, of floats, and its answer is as large as its input."""
    attributes, weight = layer.main.attributes, layer.weight
    sides = [attributes.get_ints(name, usual) for name, usual in (("pads", [0] * 4), ("strides", [1, 1]))]
    others = [attributes.get_ints("dilations", [1, 1]), [attributes.get_int("group", 1)]]
    if weight.dtype != ir.DataType.FLOAT or weight.shape is None or tuple(weight.shape[2:]) != (3, 3):
        return False
    return [list(x) for x in (*sides, *others)] == [[1] * 4, [1, 1], [1, 1], [1]]


def _doubled_conv(graph: ir.Graph, layer: Layer, small: ir.Value, turns: Turns) -> ir.Node:
    weights = [add_initializer(graph, _weight(layer, part)) for part in range(len(_PARITIES))]
    return ir.node(
        DOUBLED_CONV,
        [small, *weights, *([] if layer.bias is None else [layer.bias])],
        domain=DOMAIN,
        attributes={"grow": 2, "channels": int(layer.weight_data().shape[0]), "turns": turns.value},
        name=layer.name,
    )


def _weight(layer: Layer, part: int) -> ir.LazyTensor:
    """`[out, in, 2, 2]`."""
    source, name = layer.weight_data(), f"{layer.name}.{part}.weight"
    row, column = _PARITIES[part]
    out, given, *_ = (int(side) for side in source.shape)

    def compute() -> ir.Tensor:
        both = cornered(source.numpy().astype(np.float32), odd=bool(row))
        return ir.Tensor(np.ascontiguousarray(both[:out] if column else both[out:]), name=name)

    return ir.LazyTensor(compute, dtype=ir.DataType.FLOAT, shape=ir.Shape([out, given, 2, 2]), name=name)
