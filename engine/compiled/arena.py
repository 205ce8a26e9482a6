"""The working memory of a compiled program at other sizes than the profile's largest.

The program lays its values into regions whose lengths follow from the shapes, by a small program of its own: whole
numbers, sums, products. It is followed here, so that a memory plan knows what a call will take before any GPU is near.
"""

from collections.abc import Callable, Mapping
from typing import Any

from .program import Compiled, Program

Shapes = Mapping[str, tuple[int, ...]]
"""Input → its shape."""

_ALIGNMENT = 128
_MOST = 1 << 63
_RULES: Mapping[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
    "min": min,
    "max": max,
    "eq": lambda a, b: int(a == b),
    "ne": lambda a, b: int(a != b),
    "geq": lambda a, b: int(a >= b),
    "gt": lambda a, b: int(a > b),
    "leq": lambda a, b: int(a <= b),
    "lt": lambda a, b: int(a < b),
    "and": lambda a, b: int(a and b),
    "or": lambda a, b: int(a or b),
    "not": lambda a: int(not a),
    "select": lambda a, b, c: b if a else c,
    "copy": lambda a: a,
}


def arena_at(compiled: Compiled, shapes: Shapes) -> int | None:
    """Bytes of the arena when the inputs have these shapes; None where the program's form is not understood."""
    found = [_bytes(p, shapes) for p in compiled.programs if not p.fusion]
    return None if not found or None in found else max(size for size in found if size is not None)


def _bytes(program: Program, shapes: Shapes) -> int | None:
    if program.allocates:
        return None
    symbols = _symbols(program, shapes)
    used = {region.name: 0 for region in program.arena}
    for tensor in program.tensors.values():
        if tensor.region not in used:
            continue
        size = tensor.bytes_at(symbols)
        if size is None:
            return None
        end = tensor.offset + -(-size // _ALIGNMENT) * _ALIGNMENT
        used[tensor.region] = max(used[tensor.region], end)
    return sum(used.values())


def _symbols(program: Program, shapes: Shapes) -> dict[str, int]:
    """The symbols that follow from the inputs' shapes."""
    known: dict[str, int] = {}
    for name, shape in shapes.items():
        tensor = program.tensors.get(f"{name}.1", program.tensors.get(name))
        if tensor is not None and len(tensor.dims) == len(shape):
            known |= {d: length for d, length in zip(tensor.dims, shape, strict=True) if isinstance(d, str)}
    # Inputs' symbols are copies of what the shape program starts from.
    for step in program.shapes:
        if step.kind == "copy" and step.outputs and step.inputs and step.outputs[0] in known:
            known.setdefault(step.inputs[0], known[step.outputs[0]])
    for step in program.shapes:
        operands = [known.get(name) for name in step.inputs]
        if step.constant is not None:
            known |= dict.fromkeys(step.outputs, step.constant)
        elif step.kind in _RULES and operands and None not in operands:
            try:
                result = int(_RULES[step.kind](*operands))
            except (ArithmeticError, TypeError):
                continue
            if abs(result) <= _MOST:
                known |= dict.fromkeys(step.outputs, result)
    return known
