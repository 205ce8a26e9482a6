"""Zeros that are put around a value, as the padding of the convolution that takes it."""

import onnx_ir as ir

from ..graph.layers import only_user

_LAST_TWO = ([0, 0], [0, 0])
"""Of rows and columns of an image what is before them: batch and channels, at either end, have no padding."""


def pads_into_convolutions(graph: ir.Graph) -> None:
    """Put a `Pad` of zeros on rows and columns into the `Conv` behind it, where that has no padding of its own."""
    for node in list(graph):
        conv = only_user(node.outputs[0]) if node.op_type == "Pad" else None
        sides = None if conv is None or conv.op_type != "Conv" else _sides(node)
        if conv is None or sides is None or any(conv.attributes.get_ints("pads", [0])):
            continue
        conv.attributes["pads"] = ir.AttrInt64s("pads", sides)
        conv.replace_input_with(0, node.inputs[0])
        graph.remove(node, safe=True)


def _sides(node: ir.Node) -> list[int] | None:
    """Rows above, columns before, rows below, columns behind, as a convolution counts them; None for another kind."""
    first, pads, *others = node.inputs
    counts = None if pads is None else ir.convenience.get_const_tensor(pads)
    if first is None or counts is None or any(others) or node.attributes.get_string("mode", "constant") != "constant":
        return None
    numbers = [int(count) for count in counts.numpy().reshape(-1)]
    if len(numbers) != 8 or (numbers[:2], numbers[4:6]) != _LAST_TWO or min(numbers) < 0:
        return None
    return [*numbers[2:4], *numbers[6:8]]
