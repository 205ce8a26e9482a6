"""A text encoder that takes vectors in place of tokens: textual inversion.

Ids below 0 stand for them: -1 is the first row of `token_embeddings`, -2 the second. What else reads the ids, for the
place of the end of the text, sees 0 there, which is an ordinary token.
"""

import numpy as np
import onnx_ir as ir

from ...engine.inversion.read import TOKEN_EMBEDDINGS
from ...engine.specs import ComponentSpec, TensorSpec
from ..quantize.formats import Kind
from .layers import find_layers
from .opener import Opener


def vectors_input(width: int) -> TensorSpec:
    """The input that has them."""
    return TensorSpec(name=TOKEN_EMBEDDINGS, shape=("vectors", width))


def take_vectors(opener: Opener, spec: ComponentSpec) -> tuple[TensorSpec, ...]:
    """Open the embedding of a text encoder's master."""
    graph = opener.graph
    (ids,) = (value for value in graph.inputs if value.name == "input_ids")
    layer = next(layer for layer in find_layers(graph) if layer.kind is Kind.EMBEDDING and layer.input is ids)
    assert layer.weight.shape is not None
    width = int(layer.weight.shape[1])
    tensor = vectors_input(width)
    given = opener.input(tensor)

    embedded = layer.output
    assert embedded.dtype is not None

    def constant(name: str, value: np.ndarray) -> ir.Value:
        tensor = ir.Tensor(value, name=f"tokens/{name}")
        found = ir.Value(name=tensor.name, shape=ir.Shape(value.shape), type=ir.TensorType(tensor.dtype))
        found.const_value = tensor
        graph.register_initializer(found)
        return found

    zero, less, last = (constant(n, np.array(v, np.int64)) for n, v in (("zero", 0), ("less", -1), ("last", [-1])))
    blank = constant("blank", np.zeros((1, width), embedded.dtype.numpy()))  # a row where none is given
    before = [
        ir.node("Max", [ids, zero], name="tokens/plain"),
    ]
    plain = before[0].outputs[0]
    users = [(node, index) for node, index in ids.uses() if node is not before[0]]
    rows = ir.node("Sub", [less, ids], name="tokens/rows")
    at = ir.node("Max", [rows.outputs[0], zero], name="tokens/at")
    numbers = ir.node("Cast", [given], attributes={"to": embedded.dtype}, name="tokens/numbers")
    table = ir.node("Concat", [numbers.outputs[0], blank], attributes={"axis": 0}, name="tokens/table")
    vectors = ir.node("Gather", [table.outputs[0], at.outputs[0]], attributes={"axis": 0}, name="tokens/vectors")
    own = ir.node("Less", [ids, zero], name="tokens/own")
    wide = ir.node("Unsqueeze", [own.outputs[0], last], name="tokens/wide")
    embedded_users = list(embedded.uses())
    chosen = ir.node("Where", [wide.outputs[0], vectors.outputs[0], embedded], name="tokens/chosen")
    made = [rows, at, numbers, table, vectors, own, wide, chosen]
    for node in (*before, *made):
        node.outputs[0].name = f"{node.name}/value"
    plain.type, plain.shape = ids.type, ids.shape
    chosen.outputs[0].type, chosen.outputs[0].shape = embedded.type, embedded.shape
    for node, index in users:
        node.replace_input_with(index, plain)
    for node, index in embedded_users:
        node.replace_input_with(index, chosen.outputs[0])
    graph.insert_before(graph[0], before)
    graph.insert_after(layer.nodes[-1], made)
    return (tensor,)
