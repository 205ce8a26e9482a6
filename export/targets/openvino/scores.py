"""Scores of self-attention as products of int8, inside OpenVINO's own kernel of attention.

`QuantizeLinear` and `DequantizeLinear` in front of an `Attention`'s queries and keys are taken into that kernel, and
what makes them alike before (`quantize.query_keys`) into the products that write them. Without AMX, where scores of
floats are a quarter of a large picture's time, that is worth it; with AMX it costs nothing and brings nothing.
"""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from ...graph.attentions import self_attentions
from ...graph.layers import Layer
from ...quantize.query_keys import QueryKeys
from ...quantize.rounded import Floats
from ..onnx.signed_inputs import LEAST_STEP, constant, rounded
from .products import INT8


def int8_scores(graph: ir.Graph, attentions: Mapping[str, QueryKeys]) -> None:
    """Round queries and keys of these attentions, whose layers are as the master has them; `ValueError`: one lacks."""
    for name, node, (queries, keys, _) in self_attentions(graph, attentions):
        numbers = attentions[name]
        smaller: Floats = np.reciprocal(numbers.balance)
        _round(graph, node, 0, queries, numbers.balance, None, numbers.query_step)
        _round(graph, node, 1, keys, smaller, -numbers.centre * smaller, numbers.key_step)


def _round(
    graph: ir.Graph, node: ir.Node, index: int, layer: Layer, factors: Floats, added: Floats | None, step: np.float32
) -> None:
    """Multiply and shift channels of what the layer gives, and round it, on its way to that input of the node."""
    scale = constant(graph, f"{layer.name}.output_scale", np.maximum(step, np.float32(LEAST_STEP)))
    alike = constant(graph, f"{layer.name}.output_factors", factors)
    nodes = [ir.node("Mul", [layer.output, alike], name=f"{layer.name}/alike")]
    if added is not None:
        shift = constant(graph, f"{layer.name}.output_centre", added)
        nodes.append(ir.node("Add", [nodes[-1].outputs[0], shift], name=f"{layer.name}/centre"))
    nodes[-1].outputs[0].dtype = ir.DataType.FLOAT
    nodes += rounded(graph, nodes[-1].outputs[0], INT8, scale, f"{layer.name}/output")
    graph.insert_before(node, nodes)
    node.replace_input_with(index, nodes[-1].outputs[0])
