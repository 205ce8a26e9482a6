"""Convolutions of bytes as one product of matrices, with floats for an answer.

`QLinearConv` rounds what it gives to bytes, which in SDXL's decoder costs more than rounding what it takes. Here the
patches that a 3 × 3 convolution sees are laid out as rows of a matrix, and one `MatMulIntegerToFloat` gives floats.

Behind a nearest-neighbour doubling, a pixel's patch has only 2 × 2 different pixels, those around a corner of the small
picture's grid, and the four pixels around that corner see the same ones: with the weights that fall on one pixel added
up, one product gives all four from a patch of four, 2.25 times fewer operations. Exact but for rounding.

A pass writes such a layer as one node, `PatchConv`; see `stand_ins`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from .layers import DOMAIN, MICROSOFT
from .nodes import Nodes

PATCH_CONV = "PatchConv"
# Which of three taps in a row fall on the first and which on the second of two small pixels around a corner: for the
# pixel behind the corner (even rows and columns), and for that before it (odd ones).
_EVEN, _ODD = ([[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]])


@dataclass(frozen=True, eq=False, kw_only=True)
class Product:
    """What patches are multiplied with: int8 `[taps · in, columns]`, and `scale` and `bias` of the columns."""

    matrix: ir.Value
    scale: ir.Value
    bias: ir.Value | None


def patch_conv(
    quantized: ir.Value, one: ir.Value, zero: ir.Value, products: Sequence[Product], *, channels: int, name: str
) -> ir.Node:
    """`quantized [n, in, h, w]` uint8 → float `[n, channels, grow · h, grow · w]`.

    `zero`: the input's zero point, `one`: its scale. `products`: one, or behind a doubling two, for even and odd rows.
    """
    inputs: list[ir.Value | None] = [quantized, one, zero]
    for product in products:
        inputs += [product.matrix, product.scale, product.bias]
    return ir.node(
        PATCH_CONV, inputs, domain=DOMAIN, attributes={"grow": len(products), "channels": channels}, name=name
    )


def tapped(weight: npt.NDArray[np.generic], taps: int) -> npt.NDArray[np.generic]:
    """`[out, in · taps]` → `[taps · in, out]`: rows in the order of a patch, its pixels one after the other."""
    return np.ascontiguousarray(weight.reshape(len(weight), -1, taps).transpose(2, 1, 0).reshape(-1, len(weight)))


def cornered(weight: npt.NDArray[np.float32], *, odd: bool) -> npt.NDArray[np.float32]:
    """`[out, in, 3, 3]` → `[2 · out, in, 2, 2]`: the pixels before and behind a corner, in even or odd rows."""
    rows, columns = np.array(_ODD if odd else _EVEN, np.float32), np.array([_ODD, _EVEN], np.float32)
    shared = np.einsum("iu,bjv,kcuv->bkcij", rows, columns, weight, optimize=True)
    return np.ascontiguousarray(shared.reshape(2 * len(weight), weight.shape[1], 2, 2), np.float32)


def expand(node: ir.Node, inputs: Sequence[ir.Value | None], to: Nodes, *, rows: int) -> ir.Value:
    """What a `PatchConv` of these inputs stands for; `rows` of zeros that are missing above and below, 0 or 1."""
    quantized, one, zero, *parts = inputs
    grows = node.attributes.get_int("grow", 1) > 1
    pixels = to.emit("Transpose", [quantized], perm=ir.AttrInt64s("perm", [0, 2, 3, 1]))
    padded = to.emit("Pad", [pixels, to.number(f"patch.pads.{rows}", [0, rows, 1, 0, 0, rows, 1, 0]), zero])

    def product(patches: ir.Value, at: int) -> ir.Value:
        matrix, scale, bias = parts[3 * at : 3 * at + 3]
        return to.emit("MatMulIntegerToFloat", [patches, matrix, one, scale, zero, None, bias], MICROSOFT)

    assert parts[0] is not None
    assert parts[0].shape is not None
    side = 2 if grows else 3
    channels = int(parts[0].shape[0]) // side**2
    flat = to.emit("Reshape", [padded, to.number(f"patch.pixels.{channels}", [0, -1, channels])])
    if not grows:
        whole = product(_patches(flat, _corners(padded, 2, 2, to), padded, side, 0, to), 0)
    else:
        corners = _corners(padded, 2, 1, to)
        even, odd = (product(_patches(flat, corners, padded, side, at, to), at) for at in range(2))
        whole = _interleaved(even, odd, padded, node.attributes.get_int("channels", 0), to)
    return to.emit("Transpose", [whole], perm=ir.AttrInt64s("perm", [0, 3, 1, 2]))


def _corners(padded: ir.Value, rows: int, columns: int, to: Nodes) -> ir.Value:
    """The numbers of the pixels of `[n, h, w, c]`, but for so many last rows and columns: `[h', w', 1]`."""
    zero, step = (to.emit("Squeeze", [to.number(f"patch.{n}", [n])]) for n in (0, 1))
    counts = []
    for axis, missing in ((1, rows), (2, columns)):
        length = to.emit("Sub", [_side(padded, axis, to), to.number(f"patch.{missing}", [missing])])
        counts.append(to.emit("Range", [zero, to.emit("Squeeze", [length]), step]))
    down, along = counts
    down = to.emit("Mul", [to.emit("Reshape", [down, to.number("patch.down", [-1, 1, 1])]), _side(padded, 2, to)])
    return to.emit("Add", [down, to.emit("Reshape", [along, to.number("patch.along", [-1, 1])])])


def _patches(flat: ir.Value, corners: ir.Value, padded: ir.Value, side: int, row: int, to: Nodes) -> ir.Value:
    """`flat [n, pixels, c]` → `[n, h', w', side² · c]`: what is `side` pixels high and wide, `row` rows below a corner.

    One copy, with the numbers of the pixels; slices that are concatenated, twice, took a quarter longer with the
    product behind them.
    """
    taps = [(y, x) for y in range(row, row + side) for x in range(side)]
    down, along = (to.number(f"patch.taps.{side}.{row}.{axis}", [tap[axis] for tap in taps]) for axis in range(2))
    taken = to.emit("Add", [to.emit("Mul", [down, _side(padded, 2, to)]), along])
    patches = to.emit("Gather", [flat, to.emit("Add", [corners, taken])], axis=ir.AttrInt64("axis", 1))
    return to.emit("Reshape", [patches, to.number("patch.joined", [0, 0, 0, -1])])


def _side(value: ir.Value, axis: int, to: Nodes) -> ir.Value:
    return to.emit("Shape", [value], start=ir.AttrInt64("start", axis), end=ir.AttrInt64("end", axis + 1))


def _interleaved(even: ir.Value, odd: ir.Value, padded: ir.Value, channels: int, to: Nodes) -> ir.Value:
    """Twice `[n, h, w + 1, 2 · channels]`, pixels before and behind corners → `[n, 2 · h, 2 · w, channels]`."""
    sides = to.emit("Shape", [padded], start=ir.AttrInt64("start", 1), end=ir.AttrInt64("end", 3))
    two, last = to.number("patch.2", [2]), to.number(f"patch.channels.{channels}", [channels])
    sides = to.emit("Sub", [sides, to.number("patch.2 1", [2, 1])])
    first = to.number("patch.-1", [-1])
    rows = to.emit("Concat", [first, to.emit("Mul", [sides, two]), last], axis=ir.AttrInt64("axis", 0))
    # A row of even ones and its odd neighbour are one row of twice the width.
    both = to.emit("Reshape", [to.emit("Concat", [even, odd], axis=ir.AttrInt64("axis", 2)), rows])
    ends = [to.number(f"patch.inner.{n}", [n]) for n in (1, -1, 2)]
    return to.emit("Slice", [both, *ends])
