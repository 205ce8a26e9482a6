"""The nodes that become part of the step before them: bias, time vector, residual, scale and offset, activations."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import onnx_ir as ir

from . import texts, vectors
from .meanings import Constant, Form, Gate, Half, Looked, Meaning, Normed, Numbers, Parameter, Rows, Scaled
from .steps import Activate, Activation, Conv, GroupNorm, Linear
from .walk import Walk, attributes

_GATED: Final[Mapping[float, Activation]] = {1.0: "silu", 1.702: "quick_gelu"}


def add(walk: Walk, node: ir.Node) -> Meaning:
    """A linear's bias, a norm's offset, a time vector or a residual."""
    match walk.inputs(node):
        case (Rows() as x, Parameter(form="", part="bias") as bias) if bias.shape == (x.c,):
            step = _last(walk, node, 0)
            if isinstance(step, Linear) and step.layers == (bias.layer,) and not step.bias and not _ended(step):
                walk.change(x.name, bias=True)
                return x
        case (Normed(layer=str(layer)) as normed, Parameter(form="column", part="bias") as bias) if bias.layer == layer:
            x = normed.x
            walk.add(
                node,
                GroupNorm(
                    layer=layer, level=x.place.level, x=x.name, out=layer, c=x.c, groups=normed.groups, eps=normed.eps,
                    silu=False, x2=x.x2, c2=x.c2,
                ),
            )  # fmt: skip
            return Rows(name=layer, c=x.c + x.c2, place=x.place, form=Form.PICTURE)
        case (Rows(form=Form.PICTURE) as x, Rows(form=Form.COLUMN, plain=True) as time) if time.c == x.c:
            step = _last(walk, node, 0)
            if isinstance(step, Conv) and step.time is None:
                walk.change(x.name, time=time.name)
                return x
        case (Looked() as looked, Parameter(form="", part="weight") as places):
            return texts.placed(walk, node, looked, places)
        case (Rows(plain=True) as a, Rows(plain=True) as b) if (a.dims(), a.form, a.end) == (b.dims(), b.form, b.end):
            return _residual(walk, node, (a, b))
        case (Rows(plain=True) as a, Rows(plain=True) as b) if (a.c, a.place) == (b.c, b.place) and (
            form := vectors.SUMS.get(frozenset({a.form, b.form}))
        ):
            return replace(_residual(walk, node, (a, b)), form=form)
    raise walk.refusal(node)


def multiply(walk: Walk, node: ir.Node) -> Meaning:
    """A norm's scale, or the product in which an activation ends."""
    match walk.inputs(node):
        case (Normed(layer=None) as normed, Parameter(form="column", part="weight") as weight):
            if weight.shape == (normed.x.c + normed.x.c2,):
                return replace(normed, layer=weight.layer)
        case (Numbers() as numbers, Constant(array=factor)) if product := vectors.times(numbers, factor):
            return product
        case (Rows() as x, Constant(array=factor)) | (Constant(array=factor), Rows() as x) if factor.size == 1:
            return Scaled(x=x, factor=float(factor.reshape(())))
        case (Rows() as x, Gate() as gate) if gate.x == x and x.alone and _users(node.inputs[0]) == 2:
            return _activated(walk, node, x, gate.factor)
        case (Half(index=0, gelu=False, x=x), Half(index=1, gelu=True) as gate) if gate.x == x:
            step = walk.steps[x.name]
            if isinstance(step, Linear) and not _ended(step):
                walk.change(x.name, activation="geglu")
                return replace(x, c=x.c // 2, alone=True)
    raise walk.refusal(node)


def sigmoid(walk: Walk, node: ir.Node) -> Meaning:
    """The gate of SiLU or of quick GELU."""
    match walk.inputs(node):
        case (Rows(plain=True) as x,):
            return Gate(x=x, factor=1.0)
        case (Scaled(x=x, factor=factor),) if x.plain:
            return Gate(x=x, factor=factor)
    raise walk.refusal(node)


def gelu(walk: Walk, node: ir.Node) -> Meaning:
    """A linear's activation, or the gate of GEGLU."""
    if attributes(node, approximate="none")["approximate"] == "none":
        match walk.inputs(node):
            case (Half(index=1, gelu=False) as half,):
                return replace(half, gelu=True)
            case (Rows() as x,):
                step = _last(walk, node, 0)
                if isinstance(step, Linear) and not _ended(step):
                    walk.change(x.name, activation="gelu")
                    return replace(x, alone=True)
    raise walk.refusal(node)


def _activated(walk: Walk, node: ir.Node, x: Rows, factor: float) -> Meaning:
    step = walk.steps.get(x.name)
    activation = next((name for number, name in _GATED.items() if abs(number - factor) < 1e-3), None)
    if isinstance(step, GroupNorm) and not step.silu and activation == "silu":
        walk.change(x.name, silu=True)
    elif isinstance(step, Linear) and not _ended(step) and activation is not None:
        walk.change(x.name, activation=activation)
    elif isinstance(step, Linear) and step.activation is None and activation is not None and x.plain:
        out = f"{x.name}.{activation}"
        walk.add(node, Activate(x=x.name, out=out, place=x.place, c=x.c, activation=activation))
        return replace(x, name=out, alone=True)
    else:
        raise walk.refusal(node)
    return replace(x, alone=True)


def _residual(walk: Walk, node: ir.Node, operands: tuple[Rows, Rows]) -> Rows:
    """The sum, made by the step of one operand, that nothing else reads: of two, by the one that ran first.

    So a ResNet's second convolution, which precedes the shortcut in the graph, adds the shortcut.
    """
    order = list(walk.steps)
    makers = []
    for operand, rows in enumerate(operands):
        step = _last(walk, node, operand)
        if isinstance(step, Linear | Conv) and step.residual is None:
            makers.append((order.index(rows.name), operand))
    if not makers or operands[0].name == operands[1].name:
        raise walk.refusal(node)
    _, operand = min(makers)
    made, other = operands[operand], operands[1 - operand]
    walk.change(made.name, residual=other.name)
    return replace(made, alone=True)


def _last(walk: Walk, node: ir.Node, operand: int) -> object:
    """The step that makes the operand, if only this node reads it, so that it may become part of the step."""
    rows = walk.meaning(node.inputs[operand])
    return walk.steps.get(rows.name) if isinstance(rows, Rows) and rows.plain and walk.alone(node, operand) else None


def _ended(step: Linear) -> bool:
    """Whether something is behind the bias already."""
    return step.activation is not None or step.residual is not None


def _users(value: ir.Value | None) -> int:
    """How many read it, an output of the component being read once."""
    return 0 if value is None else len(list(value.uses())) + value.is_graph_output()
