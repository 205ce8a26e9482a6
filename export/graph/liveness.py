"""Which values of a graph are alive at once, as runtimes place them: in each other's memory where they can."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

# Runtimes make these without a copy …
_VIEWS = {"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"}
# … and write these over an operand that nobody needs any more.
_IN_PLACE = {"Add", "Sub", "Mul", "Div", "Sigmoid", "Relu", "Tanh", "Exp", "Sqrt", "Neg", "Erf"}


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node by names."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def nodes_of(model: "ir.Model") -> tuple[Node, ...]:
    """A model's nodes, in their order."""
    return tuple(
        Node(
            op=node.op_type,
            inputs=tuple(str(value.name) for value in node.inputs if value is not None),
            outputs=tuple(str(value.name) for value in node.outputs),
        )
        for node in model.graph
    )


def live_bytes_of(
    nodes: Sequence[Node],
    outputs: Sequence[str],
    constants: Iterable[str],
    size_of: Mapping[str, int],
    scratch: Mapping[str, float],
) -> int:
    """The most bytes alive at once while `nodes` run; what none of them makes is the caller's."""
    constants = set(constants)
    uses = Counter(name for node in nodes for name in node.inputs)
    made = {name for node in nodes for name in node.outputs}
    uses.update(name for name in outputs if name in made)
    buffers: dict[str, str] = defaultdict(str)  # value → its buffer, "" the caller's
    held: dict[str, int] = {}  # buffer → bytes
    readers: dict[str, int] = {}  # buffer → reads still to come
    live = peak = 0
    for node in nodes:
        if all(name in constants for name in node.inputs):
            constants.update(node.outputs)
            continue
        variable = [name for name in node.inputs if name not in constants]
        for output in node.outputs:
            buffer = _reused(node.op, output, variable, buffers, held, readers, size_of)
            buffers[output] = output if buffer is None else buffer
            if buffer is None:
                held[output] = size_of[output]
                live += size_of[output]
            readers[buffers[output]] = readers.get(buffers[output], 0) + uses[output]
        peak = max(peak, live + sum(int(scratch.get(name, 0) * size_of[name]) for name in node.outputs))
        for name in variable:
            readers[buffers[name]] = readers.get(buffers[name], 0) - 1
        for buffer in {buffers[name] for name in (*variable, *node.outputs)}:
            if buffer and not readers[buffer]:
                live -= held.pop(buffer, 0)
    return peak


def _reused(
    op: str,
    output: str,
    inputs: list[str],
    buffers: Mapping[str, str],
    held: Mapping[str, int],
    readers: Mapping[str, int],
    size_of: Mapping[str, int],
) -> str | None:
    """The buffer that `output` shares with an input, or None if it needs its own."""
    if op in _VIEWS:
        return buffers[inputs[0]]
    if op in _IN_PLACE:
        for name in inputs:
            buffer = buffers[name]
            if buffer and readers[buffer] == inputs.count(name) and held.get(buffer) == size_of[output]:
                return buffer
    return None
