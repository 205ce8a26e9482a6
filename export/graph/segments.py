"""A lowered component cut into segments: parts of its graph in files of their own, which read one file of weights.

Cuts lie behind residual sums, where few tensors cross and ONNX Runtime fuses nothing: between the blocks of a network
and inside its transformers. What is between two cuts follows from bytes of weights alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ...engine.errors import StorageError
from ...engine.folder.manifest import Segment
from ...engine.runners.ort import MODEL_FILE
from .ranks import ranks_of

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

MOST_BYTES = 64 << 20
"""Weights of a segment, unless one stretch between two possible cuts has more: SDXL's base U-Net has 38 segments."""
# A cut costs a session, and each tensor that crosses it a copy.
_SESSION = 3
# Made again in every segment that needs them, where they depend on the component's inputs alone: they cost nothing.
_CHEAP = {"Cast", "Reshape", "Shape", "Slice", "Split", "Squeeze", "Unsqueeze"}
_FLOAT, _HALF = 1, 10


@dataclass(frozen=True, kw_only=True)
class Cut:
    """The end of a segment that is not the last."""

    behind: str
    """The sum that the segment's last node makes."""
    crossing: tuple[str, ...]
    """All that later segments need of what was made up to here, in order of their names."""


def order_by_use(graph: "ir.Graph") -> None:
    """Let the weights lie in their file in the order of their use, so that segments read it piece by piece."""
    used = [value for node in graph for value in node.inputs if value is not None and value.is_initializer()]
    for value in dict.fromkeys(used):
        name = str(value.name)
        graph.initializers[name] = graph.initializers.pop(name)


def write_segments(out: Path, most: int = MOST_BYTES) -> tuple[tuple[Segment, ...], tuple[Cut, ...]]:
    """Write `segment-00.onnx` … beside `model.onnx` in `out`, and say how they are cut; nothing where one would do.

    Only the graph is read, no weights. Raises `StorageError`.
    """
    import onnx

    whole = _Graph(onnx.load(out / MODEL_FILE, load_external_data=False))
    ends = whole.ends(most)
    if len(ends) < 2:
        return (), ()
    segments = []
    for index, (start, end) in enumerate(zip((0, *ends), ends, strict=False)):
        name = f"segment-{index:02}.onnx"
        model = whole.part(start, end)
        try:
            (out / name).write_bytes(model.SerializeToString(deterministic=True))
        except OSError as error:
            raise StorageError(
                f"cannot write {out / name}: {error.strerror or error}; free some space or choose another folder"
            ) from error
        begin, finish = _range(model.graph.initializer)
        segments.append(Segment(file=name, start=begin, size=finish - begin))
    cuts = [Cut(behind=whole.nodes[end - 1].output[0], crossing=whole.crossing(end)) for end in ends[:-1]]
    return tuple(segments), tuple(cuts)


class _Graph:
    """A graph by the positions of its nodes; a cut at `end` lies before node `end`."""

    def __init__(self, model: "onnx.ModelProto") -> None:
        self.model = model
        self.nodes = list(model.graph.node)
        self.weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self.edge = {value.name: value for value in (*model.graph.input, *model.graph.output)}
        self.types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
        self.made = {name: at for at, node in enumerate(self.nodes) for name in node.output if name}

    @cached_property
    def ranks(self) -> dict[str, int]:
        """How many sides values have, where that is known."""
        return ranks_of(self.model.graph)

    @cached_property
    def again(self) -> frozenset[int]:
        """Nodes that every segment makes for itself."""
        inputs = {value.name for value in self.model.graph.input}
        found: set[int] = set()
        for at, node in enumerate(self.nodes):
            known = all(
                not name or name in inputs or name in self.weights or self.made[name] in found for name in node.input
            )
            if node.op_type in _CHEAP and known:
                found.add(at)
        return frozenset(found)

    @cached_property
    def last_use(self) -> dict[str, int]:
        """The last node that reads a value; the component's outputs are read behind all of them."""
        found = {name: at for at, node in enumerate(self.nodes) for name in node.input}
        return found | {value.name: len(self.nodes) for value in self.model.graph.output}

    def crossing(self, end: int) -> tuple[str, ...]:
        """What is made before `end` and read from there on, sorted."""
        return tuple(
            sorted(
                name
                for name, at in self.made.items()
                if at < end <= self.last_use.get(name, -1) and at not in self.again
            )
        )

    def ends(self, most: int) -> list[int]:
        """Where the segments end: the fewest sessions and tensors across, with at most `most` bytes of weights each."""
        possible = [0, *(at + 1 for at, node in enumerate(self.nodes) if self._sum(at, node)), len(self.nodes)]
        across = {end: len(self.crossing(end)) + _SESSION for end in possible}
        before = self._bytes_before()
        best: dict[int, tuple[float, tuple[int, ...]]] = {0: (0.0, ())}
        for at, end in enumerate(possible[1:], 1):
            found = []
            for start in reversed(possible[:at]):
                excess = max(0, before[end] - before[start] - most)
                found.append((best[start][0] + across[end] + excess, (*best[start][1], end)))
                if excess and len(found) > 1:
                    break  # still longer ones have more
            best[end] = min(found)
        return list(best[len(self.nodes)][1])

    def part(self, start: int, end: int) -> "onnx.ModelProto":
        """The nodes from `start` to `end` as a model of their own."""
        import onnx

        chosen = set(range(start, end)) - self.again
        waiting = list(chosen)
        while waiting:
            for name in self.nodes[waiting.pop()].input:
                at = self.made.get(name, -1)
                if at in self.again and at not in chosen:
                    chosen.add(at)
                    waiting.append(at)
        nodes = [self.nodes[at] for at in sorted(chosen)]
        read = dict.fromkeys(name for node in nodes for name in node.input if name)
        made = {name for node in nodes for name in node.output}
        given = self.crossing(end) if end < len(self.nodes) else [value.name for value in self.model.graph.output]
        # What crosses over this segment untouched is none of its business.
        given = [name for name in given if name in made]
        graph = onnx.helper.make_graph(
            nodes,
            f"{self.model.graph.name}.{start}",
            [self._value(name) for name in read if name not in made and name not in self.weights],
            [self._value(name) for name in given],
            [self.weights[name] for name in read if name in self.weights],
        )
        return onnx.helper.make_model(
            graph,
            opset_imports=self.model.opset_import,
            ir_version=self.model.ir_version,
            producer_name=self.model.producer_name,
        )

    def _sum(self, at: int, node: "onnx.NodeProto") -> bool:
        """Whether a cut may lie behind a node: a sum of two activations, and only floats cross there."""
        if node.op_type != "Add" or at + 1 == len(self.nodes):
            return False
        if any(name in self.weights or self.made.get(name, -1) in self.again for name in node.input):
            return False
        crossing = self.crossing(at + 1)
        return node.output[0] in crossing and all(self.types.get(name) in (_FLOAT, _HALF) for name in crossing)

    def _bytes_before(self) -> list[int]:
        """Bytes of the weights that the nodes before each position read first."""
        seen: set[str] = set()
        found = [0]
        for node in self.nodes:
            new = {name for name in node.input if name in self.weights} - seen
            seen |= new
            found.append(found[-1] + sum(_length(self.weights[name]) for name in new))
        return found

    def _value(self, name: str) -> "onnx.ValueInfoProto":
        import onnx

        found: onnx.ValueInfoProto | None = self.edge.get(name)
        if found is not None:
            return found
        # The rank too: of a shape of nothing known ONNX Runtime's inference makes one without sides, which `Resize`
        # then refuses as sizes.
        shape = [None] * self.ranks[name] if name in self.ranks else None
        value: onnx.ValueInfoProto = onnx.helper.make_tensor_value_info(name, self.types[name], shape)
        return value


def _external(tensor: "onnx.TensorProto") -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _length(tensor: "onnx.TensorProto") -> int:
    return int(_external(tensor).get("length", len(tensor.raw_data)))


def _range(tensors: "Sequence[onnx.TensorProto]") -> tuple[int, int]:
    """From the first to the last byte of the tensors that lie in the weights' file; (0, 0) where none does."""
    ranges = [(int(_external(t).get("offset", 0)), _length(t)) for t in tensors if t.external_data]
    return (min(start for start, _ in ranges), max(sum(both) for both in ranges)) if ranges else (0, 0)
