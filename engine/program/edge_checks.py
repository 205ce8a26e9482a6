"""What a program says of its inputs and outputs must agree with itself; see `checks`."""

import reprlib
from collections.abc import Iterator, Sequence

from .program import Edge, Layout, ValueSpec, Vectors, Words
from .sizes import is_symbol

MOST_LENGTH = 1 << 31
MOST_RANK = 8
_RANKS = {
    "input": {Layout.COLUMNS: 2, Layout.WORDS: 3, Layout.VECTORS: 2},
    "output": {Layout.PIXELS: 4, Layout.COLUMNS: 3, Layout.END_OF_TEXT: 3},
}
_OF_INPUTS, _OF_OUTPUTS = {Layout.WORDS, Layout.VECTORS}, {Layout.PIXELS, Layout.END_OF_TEXT}
_EVALUATIONS = ("evaluations",), ("steps",)
"""What the rows of vectors are; steps alone where nothing depends on the picture."""


def edge_faults(side: str, edge: Edge) -> Iterator[str]:
    """What is wrong with one; `side`: input or output."""
    where = f"{side} {reprlib.repr(edge.tensor)}"
    if not edge.values or (len(edge.values) > 1 and edge.layout is not Layout.COLUMNS):
        yield f"{where} has {len(edge.values)} values in the layout {edge.layout}"
    if edge.layout in (_OF_OUTPUTS if side == "input" else _OF_INPUTS):
        yield f"{where} has the layout {edge.layout}, which is for {'outputs' if side == 'input' else 'inputs'}"
    if (edge.layout is Layout.WORDS) != (edge.words is not None):
        yield f"{where} has the layout {edge.layout} and {'no' if edge.words is None else 'a'} table of words"
    elif edge.words is not None:
        yield from _words(where, edge, edge.words)
    if (edge.layout is Layout.VECTORS) != (edge.vectors is not None):
        yield f"{where} has the layout {edge.layout} and {'no' if edge.vectors is None else 'a'} place in its value"
    elif edge.vectors is not None:
        yield from _vectors(where, edge, edge.vectors)
    for value in edge.values:
        if value.dtype not in ("float16", "float32", "int8", "int32"):
            yield f"{where} is {reprlib.repr(value.dtype)}, float16, float32, int8 and int32 are allowed"
        for length in value.shape:
            if not (is_symbol(length) if isinstance(length, str) else 0 < length < MOST_LENGTH):
                yield f"{where} has a length {reprlib.repr(length)}"
        if len(value.shape) != _RANKS[side].get(edge.layout, len(value.shape)) or not 0 < len(value.shape) <= MOST_RANK:
            yield f"{where} has shape {reprlib.repr(value.shape)} in the layout {edge.layout}"


def _words(where: str, edge: Edge, words: Words) -> Iterator[str]:
    lengths = (words.words, words.tokens, words.width)
    if not all(0 < length < MOST_LENGTH for length in lengths):
        yield f"{where} has a table of {reprlib.repr(lengths)} words, places and numbers"
    for value in edge.values:
        if value.shape != ("batch", "tokens", words.width) or value.dtype != "float16":
            yield f"{where} is {value.dtype} {reprlib.repr(value.shape)}, its table has float16 rows of {words.width}"


def _vectors(where: str, edge: Edge, vectors: Vectors) -> Iterator[str]:
    if not (0 <= vectors.first < MOST_LENGTH and 0 < vectors.width < MOST_LENGTH):
        yield f"{where} has {vectors.width} columns from {vectors.first} on"
    if vectors.waves is not None:
        waves = 2 * len(vectors.waves.frequencies)
        if not waves or vectors.width % waves:
            yield f"{where} has {vectors.width} columns, a multiple of its {waves} waves is allowed"
    for value in edge.values:
        if value.shape[:1] not in _EVALUATIONS:
            yield f"{where} has shape {reprlib.repr(value.shape)}, rows for evaluations or steps are allowed"


def column_faults(edges: Sequence[Edge]) -> Iterator[str]:
    """What is wrong with the values whose columns are inputs': each column must be one's."""
    values: dict[str, list[tuple[ValueSpec, Vectors]]] = {}
    for edge in edges:
        if edge.vectors is not None:
            for value in edge.values:
                values.setdefault(value.name, []).append((value, edge.vectors))
    for name, parts in values.items():
        end = 0
        for _, vectors in sorted(parts, key=lambda part: part[1].first):
            if vectors.first != end:
                yield f"the columns of {reprlib.repr(name)} from {end} on are no input's, or two inputs'"
            end = vectors.first + vectors.width
        if any(value != parts[0][0] for value, _ in parts) or parts[0][0].shape[-1] != end:
            yield f"the inputs that are columns of {reprlib.repr(name)} differ about it, or do not fill it"
