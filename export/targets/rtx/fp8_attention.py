"""Attention of e4m3: queries, keys and values are rounded, and so are the shares that softmax gives.

TensorRT for RTX makes one kernel of it (`_gemm_mha_v2` on `fp8_e4m3`), from Ada on, and rounds in the kernels that
bring queries, keys and values into the order of heads, which are there in any case. That takes more than the ONNX file
can say: with `QuantizeLinear` and `DequantizeLinear` alone it rounds, makes halves of it again, and attends in those.
ONNX has nothing for the shares' type either. So the file has the one, in nodes of a name that `rounded_shares` knows
again in the network that the parser has made of it; there it asks for the other. There are no such kernels for fewer
than 32 tokens, so that the range of sizes begins higher than for halves.

The stand-in has the same steps one by one, since an `Attention` of ONNX Runtime could not round its shares.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
import onnx_ir as ir

from ....engine.specs import ComponentSpec
from ...graph.attentions import self_attentions
from ...graph.layers import find_layers
from ...quantize.attention_places import PROJECTIONS, SHARE_STEP, Steps, least_side
from ..onnx.signed_inputs import LEAST_STEP, constant, rounded
from .fp8 import E4M3
from .profiles import Profile
from .rounded_shares import MARK

_SIDES: Final = ("height", "width")


def fp8_attention(graph: ir.Graph, attentions: Mapping[str, Steps]) -> dict[str, int]:
    """Round what goes into these attentions, whose layers are still as the master has them.

    They are known by the layers that they read: `<name>.to_q`, `<name>.to_k`, `<name>.to_v`. Returns their nodes' names
    and the width of a head. `ValueError` for one that is not in the graph.
    """
    found: dict[str, int] = {}
    for name, node, layers in self_attentions(graph, attentions):
        for index, (layer, step) in enumerate(zip(layers, attentions[name], strict=True)):
            scale = constant(graph, f"{layer.name}.output_scale", np.array(max(step, LEAST_STEP), np.float16))
            nodes = rounded(graph, layer.output, E4M3, scale, f"{layer.name}/output")
            graph.insert_before(node, nodes)
            node.replace_input_with(index, nodes[-1].outputs[0])
        node.name = f"{name}{MARK}"
        weight = layers[0].weight.shape
        assert weight is not None
        found[node.name] = int(weight[0]) // node.attributes.get_int("q_num_heads", 1)
    return found


def with_tokens(
    sizes: Mapping[str, Profile], spec: ComponentSpec, graph: ir.Graph, names: Iterable[str]
) -> dict[str, Profile]:
    """The profiles, without pictures so small that one of these attentions of the graph has too few tokens."""
    blocks = [re.match(r"down_blocks\.(\d+)\.", layer.name) for layer in find_layers(graph)]
    side = least_side(names, 1 + max((int(block[1]) for block in blocks if block), default=0))
    found = dict(sizes)
    for tensor in spec.inputs:
        least, best, most = sizes[tensor.name]
        raised = (max(n, side) if dim in _SIDES else n for n, dim in zip(least, tensor.shape, strict=True))
        found[tensor.name] = (tuple(raised), best, most)
    return found


def opened(graph: ir.Graph, widths: Mapping[str, int]) -> None:
    """Write the attentions of these nodes out, with their shares rounded, as the compiled kernel has them."""
    for node in list(graph):
        if node.name in widths:
            nodes = list(_steps(graph, node, widths[node.name]))
            ir.convenience.replace_nodes_and_values(
                graph, node, [node], nodes, [node.outputs[0]], [nodes[-1].outputs[0]]
            )


def _steps(graph: ir.Graph, node: ir.Node, width: int) -> Iterable[ir.Node]:
    name, heads = str(node.name), node.attributes.get_int("q_num_heads", 1)

    def add(op: str, inputs: list[ir.Value], what: str, **attributes: Any) -> ir.Node:
        made = ir.node(op, inputs, attributes=attributes, name=f"{name}/{what}")
        made.outputs[0].dtype = ir.DataType.FLOAT16
        return made

    split = constant(graph, f"{name}.split", np.array([0, 0, heads, width], np.int64))
    joined = constant(graph, f"{name}.joined", np.array([0, 0, heads * width], np.int64))
    sides = []
    for value, part, order in zip(node.inputs, PROJECTIONS, ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3)), strict=True):
        assert value is not None
        shaped = add("Reshape", [value, split], f"{part}/split")
        turned = add("Transpose", [shaped.outputs[0]], f"{part}/heads", perm=list(order))
        yield from (shaped, turned)
        sides.append(turned.outputs[0])
    # As ONNX has it: queries and keys are both multiplied with the root, lest a sum leave half's range.
    root = constant(graph, f"{name}.root", np.array(width**-0.25, np.float16))
    for index in range(2):
        scaled = add("Mul", [sides[index], root], f"{PROJECTIONS[index]}/scaled")
        yield scaled
        sides[index] = scaled.outputs[0]
    scores = add("MatMul", sides[:2], "scores")
    shares = add("Softmax", [scores.outputs[0]], "shares", axis=-1)
    step = constant(graph, "e4m3.share_step", np.array(SHARE_STEP, np.float16))
    rounding = rounded(graph, shares.outputs[0], E4M3, step, f"{name}/shares")
    mixed = add("MatMul", [rounding[-1].outputs[0], sides[2]], "mixed")
    turned = add("Transpose", [mixed.outputs[0]], "tokens", perm=[0, 2, 1, 3])
    yield from (scores, shares, *rounding, mixed, turned, add("Reshape", [turned.outputs[0], joined], "joined"))
