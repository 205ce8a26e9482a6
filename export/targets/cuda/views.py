"""The nodes that compute nothing: casts, other forms of the same rows, shapes, and what a convolution does itself."""

from dataclasses import replace

import onnx_ir as ir

from ....engine.program.sizes import Size
from . import vectors
from .meanings import (
    Constant,
    End,
    Extents,
    Form,
    Grouped,
    Half,
    Ids,
    Marks,
    Meaning,
    Normed,
    Numbers,
    Parameter,
    Rows,
    Wave,
    Waved,
)
from .steps import Linear, Place
from .walk import Walk, attributes

_NEAREST = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


def cast(walk: Walk, node: ir.Node) -> Meaning:
    """From one float to another: steps say nothing of dtypes."""
    meaning, target = walk.meaning(node.inputs[0]), ir.DataType(attributes(node)["to"])
    whole = isinstance(meaning, Ids | Marks | End)
    if meaning is None or target.is_floating_point() == whole:
        raise walk.refusal(node)
    return walk.view(node, meaning) if isinstance(meaning, Rows) else meaning


def transpose(walk: Walk, node: ir.Node) -> Meaning:
    """A linear's weight, or planes ↔ tokens."""
    permutation = list(attributes(node, perm=())["perm"])
    match walk.inputs(node):
        case (Parameter(form="", shape=(_, _)) as weight,) if permutation == [1, 0]:
            return replace(weight, form="transposed")
        case (Rows(form=Form.PLANES | Form.TOKENS, place=Place(rows="pixels")) as x,) if permutation == [0, 2, 1]:
            return walk.view(node, x, form=Form.TOKENS if x.form is Form.PLANES else Form.PLANES)
    raise walk.refusal(node)


def reshape(walk: Walk, node: ir.Node) -> Meaning:
    """Picture → planes or groups, and back to a picture of the same size."""
    match walk.inputs(node):
        case (Rows(form=Form.PICTURE, upsample_to=None) as x, Constant(numbers=[0, groups, -1])):
            if groups:
                return Grouped(x=x, groups=groups)
            return walk.view(node, x, form=Form.PLANES)
        case (Waved(of=Numbers(count=int())) as waved, Constant(numbers=[0, -1])):
            return vectors.rows(walk, waved)
        case (Rows(form=Form.PLANES) as x, Extents() as wanted) if wanted.dims == x.dims(Form.PICTURE):
            return walk.view(node, x, form=Form.PICTURE)
        case (Normed() as normed, Extents() as wanted) if wanted.dims == normed.x.dims():
            return normed
    raise walk.refusal(node)


def unsqueeze(walk: Walk, node: ir.Node) -> Meaning:
    """What is broadcast over height and width: a vector a picture, or a norm's scale and offset; or an index."""
    match walk.inputs(node):
        case (End() as end, Constant(numbers=[1])):
            return end
        case _ if (wider := vectors.unsqueezed(walk, node)) is not None:
            return wider
        case (Rows(form=Form.VECTOR, end=None) as x, Constant(numbers=[2, 3])):
            return walk.view(node, x, form=Form.COLUMN)
        case (Parameter(form="", shape=(_,)) as parameter, Constant(numbers=[1, 2])):
            return replace(parameter, form="column")
    raise walk.refusal(node)


def shape(walk: Walk, node: ir.Node) -> Meaning:
    """The shape of rows."""
    match walk.inputs(node):
        case (Rows(upsample_to=None) as x,):
            limits = attributes(node, start=0, end=None)
            return Extents(dims=x.dims()[limits["start"] : limits["end"]])
    raise walk.refusal(node)


def concat(walk: Walk, node: ir.Node) -> Meaning:
    """Two pictures' channels, which their readers take one behind the other, parts of a shape, or of vectors."""
    axis = attributes(node)["axis"]
    match walk.inputs(node):
        case (Rows(form=Form.PICTURE, plain=True) as x, Rows(form=Form.PICTURE, plain=True) as x2) if (
            axis == 1 and x.place == x2.place
        ):
            return replace(x, x2=x2.name, c2=x2.c)
        case (Wave() as first, Wave() as second) if axis == -1 and (both := vectors.waved(walk, first, second)):
            return both
        case parts if axis == 0 and all(isinstance(part, Extents) for part in parts):
            return Extents(dims=tuple(d for part in parts if isinstance(part, Extents) for d in part.dims))
        case _ if walk.conditions is not None and axis in (1, 2):
            return vectors.beside(walk, node) if axis == 1 else vectors.columns(walk, node)
    raise walk.refusal(node)


def split(walk: Walk, node: ir.Node) -> tuple[Meaning, ...]:
    """Blocks of columns of an input, or the halves of a linear's output."""
    axis = attributes(node, axis=0)["axis"]
    match walk.inputs(node):
        case (Rows(form=Form.VECTOR) as x, Constant(numbers=widths)) if (
            axis in (1, -1) and x.name not in walk.steps and sum(widths) == x.c
        ):
            return tuple(replace(x, name=f"{x.name}.{i}", c=width) for i, width in enumerate(widths))
        case (Rows(form=Form.TOKENS, plain=True) as x,) if (
            axis == -1 and len(node.outputs) == 2 and isinstance(walk.steps.get(x.name), Linear) and walk.alone(node, 0)
        ):
            return tuple(Half(x=x, index=i) for i in range(2))
    raise walk.refusal(node)


def resize(walk: Walk, node: ir.Node) -> Meaning:
    """One level up by nearest neighbours, for the convolution that follows."""
    if any(attributes(node)[name] != value for name, value in _NEAREST.items()):
        raise walk.refusal(node)
    match walk.inputs(node):
        # Behind halvings of odd sizes, twice the size is not that of the level above.
        case (Rows(form=Form.PICTURE, plain=True) as x, None, Constant(numbers=[1, 1, 2, 2])) if x.place.level <= 0:
            return replace(x, upsample_to=x.place.level - 1)
        case (Rows(form=Form.PICTURE, plain=True) as x, None, None, Extents(dims=wanted)) if wanted == _above(x):
            return replace(x, upsample_to=x.place.level - 1)
    raise walk.refusal(node)


def _above(x: Rows) -> tuple[Size, ...]:
    return replace(x, place=replace(x.place, level=x.place.level - 1)).dims()
