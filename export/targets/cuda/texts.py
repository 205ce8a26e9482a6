"""The nodes around ids: tokens become vectors before the first step, and of a text the row is meant where it ends.

Both are the host's work (`engine.runners.cuda_words`); a norm or a linear behind that row runs on all rows of the text.
"""

from collections.abc import Iterable
from dataclasses import replace

import onnx_ir as ir

from .meanings import Constant, End, Form, Ids, Looked, Marks, Meaning, Parameter, Rows
from .steps import Place, Words
from .walk import Walk, attributes

_WORDS = "weight"
"""How a table's parameter ends."""


def gather(walk: Walk, node: ir.Node) -> Meaning:
    """A token's row of the table of words."""
    if attributes(node, axis=0)["axis"] == 0:
        match walk.inputs(node):
            case (Parameter(form="", part="weight", shape=(_, _)) as table, Ids() as ids):
                return Looked(ids=ids, table=table)
    raise walk.refusal(node)


def placed(walk: Walk, node: ir.Node, looked: Looked, places: Parameter) -> Meaning:
    """Words and places, added: what the first step reads."""
    ids, (words, width) = looked.ids, looked.table.shape
    if places.shape != (ids.tokens, width) or walk.words is not None:
        raise walk.refusal(node, "one input of ids is looked up, and every place of its texts has a vector")
    walk.words = Words(
        tensor=ids.name,
        words=f"{looked.table.layer}.{_WORDS}",
        places=f"{places.layer}.{_WORDS}",
        shape=(words, ids.tokens, width),
    )
    return Rows(name=ids.name, c=width, place=Place(rows="texts"), form=Form.TOKENS)


def equal(walk: Walk, node: ir.Node) -> Meaning:
    """Which tokens are the one that ends a text."""
    match walk.inputs(node):
        case (Ids() as ids, Constant(numbers=[end])):
            return Marks(ids=ids, end=int(end))
    raise walk.refusal(node)


def argmax(walk: Walk, node: ir.Node) -> Meaning:
    """Where a text ends."""
    given = attributes(node, axis=0, keepdims=1, select_last_index=0)
    if given["axis"] in (1, -1) and not given["keepdims"] and not given["select_last_index"]:
        match walk.inputs(node):
            case (Ids() as ids,):
                return End(ids=ids, end=None)
            case (Marks(ids=ids, end=end),):
                return End(ids=ids, end=end)
    raise walk.refusal(node)


def gather_rows(walk: Walk, node: ir.Node) -> Meaning:
    """The row of each text where it ends."""
    if attributes(node, batch_dims=0)["batch_dims"] == 1:
        match walk.inputs(node):
            case (Rows(form=Form.TOKENS, plain=True, place=Place(rows="texts"), end=None) as x, End() as end):
                return walk.view(node, x, form=Form.VECTOR, end=end)
    raise walk.refusal(node)


def ending(walk: Walk, ends: Iterable[End | None]) -> Words | None:
    """The table, with the id by which outputs find their texts' ends; all find it in one way."""
    different = {end.end for end in ends if end is not None}
    assert len(different) <= 1, different
    return walk.words if walk.words is None else replace(walk.words, end=next(iter(different), None))
