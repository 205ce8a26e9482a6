"""The state of a lowering: what the values mean that the walk has passed, and the steps that it has found so far."""

from dataclasses import replace
from typing import Any

import onnx_ir as ir

from ....engine.errors import IncompatibleError
from ....engine.program.program import Along
from ...graph.layers import only_user
from .meanings import Constant, Form, Ids, Meaning, Numbers, Parameter, Rows
from .steps import Place, Step, Vector, Words


class Walk:
    """Goes through a graph's nodes in order; the rules (`lower.RULES`) read meanings from it and add steps to it."""

    def __init__(self, graph: ir.Graph) -> None:
        self.steps: dict[str, Step] = {}
        """By the value that each makes, in the order in which they run."""
        self._meanings: dict[ir.Value, Meaning] = {}
        self.words: Words | None = None
        """The table that ids are looked up in."""
        self.vectors: dict[str, Vector] = {}
        """By input: those that become rows of a value on the host."""
        shapes = [_shape(value) for value in graph.inputs]
        conditions = ("steps",) in shapes
        self.conditions: Place | None = None
        """Of a conditioner: what the rows of all are that does not come from the prompt's tokens."""
        if conditions:
            differs = any(shape[:1] == ("batch",) and len(shape) < 3 for shape in shapes)
            self.conditions = Place(rows="evaluations" if differs else "steps")
        for value in graph.inputs:
            if (meaning := _outside(value, conditions=conditions)) is not None:
                self._meanings[value] = meaning
        self._inputs = {value.name for value in graph.inputs}

    def meaning(self, value: ir.Value | None) -> Meaning | None:
        """None for an operand that is left out, and for what has none: pictures of unknown sizes."""
        if value is None or not value.is_initializer():
            return None if value is None else self._meanings.get(value)
        name = value.name or ""
        layer, _, part = name.rpartition(".")
        if part in ("weight", "bias"):
            return Parameter(layer=layer, part=part, shape=_numbers(value))
        return None if value.const_value is None else Constant(array=value.const_value.numpy())

    def inputs(self, node: ir.Node) -> tuple[Meaning | None, ...]:
        """What the node's operands mean."""
        return tuple(self.meaning(value) for value in node.inputs)

    def learn(self, node: ir.Node, meanings: tuple[Meaning, ...]) -> None:
        """What the node's outputs mean."""
        self._meanings.update(zip(node.outputs, meanings, strict=True))

    def view(self, node: ir.Node, rows: Rows, **changes: Any) -> Rows:
        """The node's first operand in another form."""
        return replace(rows, alone=self.alone(node, 0), **changes)

    def alone(self, node: ir.Node, operand: int) -> bool:
        """Whether the node is all that reads the value which is its operand."""
        value = node.inputs[operand]
        rows = self.meaning(value)
        return isinstance(rows, Rows) and rows.alone and value is not None and only_user(value) is not None

    def add(self, node: ir.Node, step: Step) -> None:
        """A step that the node is. Raises `IncompatibleError` where a layer runs twice: its values would be one."""
        if step.out in self.steps or step.out in self._inputs:
            raise self.refusal(node, f"the value '{step.out}' is made twice")
        self.steps[step.out] = step

    def change(self, name: str, **changes: Any) -> None:
        """What follows the step that makes a value becomes part of it, so it runs last now: behind what it reads."""
        self.steps[name] = replace(self.steps.pop(name), **changes)

    def refusal(self, node: ir.Node, why: str = "") -> IncompatibleError:
        """The error for a node that is no part of any step."""
        operands = ", ".join(str(value.name) for value in node.inputs if value is not None)
        return IncompatibleError(
            f"the cuda target has no step for the node '{node.name}', {node.op_type}({operands})"
            f"{': ' + why if why else ''}; build this component for another target"
        )


def _shape(value: ir.Value) -> tuple[int | str | None, ...]:
    return () if value.shape is None else tuple(d if isinstance(d, int) else d.value for d in value.shape)


def _outside(value: ir.Value, *, conditions: bool) -> Meaning | None:
    """An input of the component; `conditions`: it is a conditioner."""
    if value.dtype is None or value.shape is None:
        return None
    shape, name = _shape(value), value.name or ""
    if conditions and value.dtype.is_floating_point():
        match shape:
            case ("batch",) | ("steps",):
                return Numbers(name=name, along=Along(str(shape[0])))
            case ("batch", int(count)):
                return Numbers(name=name, along=Along.BATCH, count=count)
    if not value.dtype.is_floating_point():
        match shape:
            case ("batch", int(tokens)):
                return Ids(name=value.name or "", tokens=tokens)
        return None
    match shape:
        case ("batch", int(c), "height", "width"):
            place, form = Place(), Form.PICTURE
        case ("batch", "tokens", int(c)):
            place, form = Place(rows="texts"), Form.TOKENS
        case ("batch", int(c)):
            place, form = Place(rows="batch"), Form.VECTOR
        case _:
            return None
    return Rows(name=value.name or "", c=c, place=place, form=form)


def _numbers(value: ir.Value) -> tuple[int, ...]:
    assert value.shape is not None, value.name
    return tuple(int(d) for d in value.shape)


def attributes(node: ir.Node, **expected: Any) -> dict[str, Any]:
    """The node's attributes, with `expected` for those that it does not give."""
    return {**expected, **{name: attribute.value for name, attribute in node.attributes.items()}}
