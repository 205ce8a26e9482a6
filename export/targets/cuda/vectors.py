"""The nodes at a conditioner's beginning: the host makes waves of few numbers, and rows for every evaluation of both.

See `engine.runners.cuda_vectors`. What depends on the step alone and what depends on the picture alone have the same
rows in memory, one for each of all evaluations, so that their sums are sums of rows.
"""

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from ....engine.program.program import Along, Vectors, Waves
from .meanings import Columns, Constant, Form, Meaning, Numbers, Rows, Wave, Waved
from .steps import Vector
from .walk import Walk

SUMS = {
    frozenset({Form.EACH_STEP, Form.EACH_PICTURE}): Form.EVALUATIONS,
    frozenset({Form.EACH_STEP, Form.EVALUATIONS}): Form.EVALUATIONS,
    frozenset({Form.EACH_PICTURE, Form.EVALUATIONS}): Form.EVALUATIONS,
}
"""The form of a sum of two that are broadcast over each other."""


def times(numbers: Numbers, factor: np.ndarray) -> Meaning | None:
    """Numbers times one, or each times every frequency; None if they are neither."""
    if factor.size == 1 and not numbers.spread:
        return replace(numbers, factor=numbers.factor * float(factor.reshape(())))
    if factor.ndim == 1 and numbers.spread:
        return Wave(of=numbers, frequencies=tuple(float(one) for one in factor))
    return None


def wave(walk: Walk, node: ir.Node) -> Meaning:
    """Sines or cosines."""
    match walk.inputs(node):
        case (Wave(function="") as angles,):
            return replace(angles, function=node.op_type.lower())
    raise walk.refusal(node)


def waved(walk: Walk, first: Wave, second: Wave) -> Meaning | None:
    """Both functions, side by side."""
    if (first.of, first.frequencies) != (second.of, second.frequencies) or {first.function, second.function} != {
        "cos",
        "sin",
    }:
        return None
    waves = Waves(frequencies=first.frequencies, factor=first.of.factor, sines_first=first.function == "sin")
    both = Waved(of=first.of, waves=waves)
    return rows(walk, both) if first.of.count is None else both


def rows(walk: Walk, waved: Waved) -> Rows:
    """The rows of a value that waves are."""
    width = (waved.of.count or 1) * 2 * len(waved.waves.frequencies)
    return _value(walk, waved.of, width, waved.waves)


def beside(walk: Walk, node: ir.Node) -> Meaning:
    """Vectors of a picture side by side: the host writes them into one value."""
    parts = [
        _value(walk, one, one.count, None) if isinstance(one, Numbers) and one.count and one.factor == 1 else one
        for one in walk.inputs(node)
    ]
    found = [one for one in parts if isinstance(one, Rows) and one.form is Form.VECTOR and one.name in walk.vectors]
    if len(found) < len(parts) or not all(walk.alone(node, i) or _given(walk, node, i) for i in range(len(parts))):
        raise walk.refusal(node)
    name, first, width = "+".join(one.name for one in found), 0, sum(one.c for one in found)
    for one in found:
        vector = walk.vectors[one.name]
        vectors = replace(vector.vectors, first=first)
        walk.vectors[one.name] = replace(vector, value=name, c=width, vectors=vectors)
        first += one.c
    return replace(found[0], name=name, c=width, alone=True)


def columns(walk: Walk, node: ir.Node) -> Meaning:
    """An output whose columns are several values."""
    match walk.inputs(node):
        case parts if all(isinstance(one, Rows) and one.form in (Form.EACH_STEP, Form.EVALUATIONS) for one in parts):
            return Columns(parts=tuple(one for one in parts if isinstance(one, Rows)))
    raise walk.refusal(node)


def unsqueezed(walk: Walk, node: ir.Node) -> Meaning | None:
    """An axis more: behind numbers, or where the other of steps and pictures goes; None for anything else."""
    match walk.inputs(node):
        case (Numbers(spread=False) as numbers, Constant(numbers=[-1])):
            return replace(numbers, spread=True)
        case (Rows(form=Form.STEPS) as x, Constant(numbers=[1])):
            return walk.view(node, x, form=Form.EACH_STEP)
        case (Rows(form=Form.VECTOR, end=None) as x, Constant(numbers=[0])) if x.place == walk.conditions:
            return walk.view(node, x, form=Form.EACH_PICTURE)
    return None


def _value(walk: Walk, numbers: Numbers, width: int, waves: Waves | None) -> Rows:
    assert walk.conditions is not None, numbers
    vectors = Vectors(along=numbers.along, first=0, width=width, waves=waves)
    walk.vectors[numbers.name] = Vector(value=numbers.name, c=width, place=walk.conditions, vectors=vectors)
    form = Form.STEPS if numbers.along is Along.STEPS else Form.VECTOR
    return Rows(name=numbers.name, c=width, place=walk.conditions, form=form)


def _given(walk: Walk, node: ir.Node, operand: int) -> bool:
    """Whether only this node reads an input of the component."""
    value = node.inputs[operand]
    return isinstance(walk.meaning(value), Numbers) and value is not None and len(list(value.uses())) == 1
