"""Convolutions of bytes as one product of matrices, with floats for an answer.

`QLinearConv` rounds what it gives to bytes, which in SDXL's decoder costs more than rounding what it takes. Here the
patches that a 3 × 3 convolution sees are laid out as rows of a matrix, and one `MatMulIntegerToFloat` gives floats.

Behind a nearest-neighbour doubling, a pixel's patch has only 2 × 2 different pixels, those around a corner of the small
picture's grid, and the four pixels around that corner see the same ones: with the weights that fall on one pixel added
up, one product gives all four from a patch of four, 2.25 times fewer operations. Exact but for rounding.

A pass writes such a layer as one node, `PatchConv`, which ONNX Runtime does not know: `expand` says what it stands for,
once it is known whether the rows above and below are zeros or a neighbouring band's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from .layers import MICROSOFT, add_initializer

DOMAIN, PATCH_CONV = "pocketxl", "PatchConv"
_END = np.iinfo(np.int64).max
# Which of three taps in a row fall on the first and which on the second of two small pixels: for the pixel before the
# corner, and for that behind it.
_SHARES = np.array([[[1, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 1, 1]]], np.float32)


class Nodes(Protocol):
    """The graph that is being made."""

    def emit(self, op: str, inputs: list[ir.Value | None], domain: str = "", /, **attributes: ir.Attr) -> ir.Value:
        """Add a node; its output."""

    def number(self, name: str, numbers: list[int]) -> ir.Value:
        """Those int64 numbers, under a name that stands for them."""


def patch_conv(
    quantized: ir.Value, matrix: ir.Value, one: ir.Value, scale: ir.Value, zero: ir.Value, bias: ir.Value | None,
    *, grow: int, channels: int, name: str,
) -> ir.Node:
    """`quantized [n, in, h, w]` uint8 → float `[n, channels, grow · h, grow · w]`; `grow` is 1 or 2.

    `matrix` int8 `[taps · in, grow² · channels]` as `tapped` and `cornered` make it, `scale` and `bias` of its columns,
    `zero` the input's zero point.
    """  # fmt: skip
    return ir.node(
        PATCH_CONV,
        [quantized, matrix, one, scale, zero, None, bias],
        domain=DOMAIN,
        attributes={"grow": grow, "channels": channels},
        name=name,
    )


def is_patch_conv(node: ir.Node) -> bool:
    """Whether a node is one."""
    return (node.domain, node.op_type) == (DOMAIN, PATCH_CONV)


def tapped(weight: npt.NDArray[np.generic], taps: int) -> npt.NDArray[np.generic]:
    """`[out, in · taps]` → `[taps · in, out]`: rows in the order of a patch, its pixels one after the other."""
    return np.ascontiguousarray(weight.reshape(len(weight), -1, taps).transpose(2, 1, 0).reshape(-1, len(weight)))


def cornered(weight: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """`[out, in, 3, 3]` → `[4 · out, in, 2, 2]`: the four pixels around a corner, before and behind it in rows first."""
    shared = np.einsum("aiu,bjv,kcuv->abkcij", _SHARES, _SHARES, weight, optimize=True)
    return np.ascontiguousarray(shared.reshape(4 * len(weight), weight.shape[1], 2, 2), np.float32)


def expand(node: ir.Node, inputs: Sequence[ir.Value | None], to: Nodes, *, rows: int) -> ir.Value:
    """What a `PatchConv` of these inputs stands for; `rows` of zeros that are missing above and below, 0 or 1."""
    zero = inputs[4]
    grow, channels = node.attributes.get_int("grow", 1), node.attributes.get_int("channels", 0)
    pixels = to.emit("Transpose", [inputs[0]], perm=ir.AttrInt64s("perm", [0, 2, 3, 1]))
    pads = to.number(f"patch.pads.{rows}", [0, rows, 1, 0, 0, rows, 1, 0])
    padded = to.emit("Pad", [pixels, pads, zero])
    patches = _joined(_joined(padded, 2, 4 - grow, to), 1, 4 - grow, to)
    product = to.emit("MatMulIntegerToFloat", [patches, *inputs[1:]], MICROSOFT)
    if grow == 2:
        product = _interleaved(product, padded, channels, to)
    return to.emit("Transpose", [product], perm=ir.AttrInt64s("perm", [0, 3, 1, 2]))


def expand_all(graph: ir.Graph) -> None:
    """Put in the place of every `PatchConv` of a whole graph what it stands for."""
    for node in list(graph):
        if is_patch_conv(node):
            to = _InGraph(graph, str(node.name))
            made = expand(node, node.inputs, to, rows=1)
            ir.convenience.replace_nodes_and_values(graph, node, [node], to.nodes, [node.outputs[0]], [made])


def _joined(value: ir.Value, axis: int, count: int, to: Nodes) -> ir.Value:
    """Every pixel beside the `count - 1` that follow it along an axis, channels of the first first."""
    parts: list[ir.Value | None] = [
        to.emit(
            "Slice",
            [value, *(to.number(f"patch.{n}", [n]) for n in (at, at - count + 1 or _END, axis))],
        )
        for at in range(count)
    ]
    return to.emit("Concat", parts, axis=ir.AttrInt64("axis", 3))


def _interleaved(product: ir.Value, padded: ir.Value, channels: int, to: Nodes) -> ir.Value:
    """`[n, h + 1, w + 1, 4 · channels]`, the pixels around every corner → `[n, 2 · h, 2 · w, channels]`."""
    apart = to.emit("Reshape", [product, to.number(f"patch.apart.{channels}", [0, 0, 0, 2, 2 * channels])])
    rows = to.emit("Transpose", [apart], perm=ir.AttrInt64s("perm", [0, 1, 3, 2, 4]))
    sides = to.emit("Shape", [padded], start=ir.AttrInt64("start", 1), end=ir.AttrInt64("end", 3))
    two = to.number("patch.2", [2])
    sides = to.emit("Sub", [to.emit("Mul", [sides, two]), two])
    last = to.number(f"patch.channels.{channels}", [channels])
    shape = to.emit("Concat", [to.number("patch.-1", [-1]), sides, last], axis=ir.AttrInt64("axis", 0))
    whole = to.emit("Reshape", [rows, shape])
    ends = [to.number(f"patch.inner.{n}", numbers) for n, numbers in enumerate(([1, 1], [-1, -1], [1, 2]))]
    return to.emit("Slice", [whole, *ends])


@dataclass(eq=False)
class _InGraph:
    graph: ir.Graph
    name: str
    nodes: list[ir.Node] = field(default_factory=list)

    def emit(self, op: str, inputs: list[ir.Value | None], domain: str = "", /, **attributes: ir.Attr) -> ir.Value:
        name = f"{self.name}/{op}.{len(self.nodes)}"
        node = ir.Node(domain, op, inputs, attributes=list(attributes.values()), name=name)
        node.outputs[0].name = f"{name}:0"
        self.nodes.append(node)
        return node.outputs[0]

    def number(self, name: str, numbers: list[int]) -> ir.Value:
        return add_initializer(self.graph, ir.Tensor(np.array(numbers, np.int64), name=name))
