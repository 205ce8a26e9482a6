"""A model in parts, which are compiled side by side and run one after another.

OpenVINO compiles with one thread, most of the time in passes over the graph: 13 s for SDXL's U-Net, however many cores
there are. Parts need no other kernels than the whole, and a run takes no longer; what crosses the cuts, and working
memory that each part has for itself, is the price.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from ..ending import Ended
from ..specs import Arrays

MOST_PARTS = 3
PART_OPERATIONS = 2000
"""Below which compiling takes little more than a second."""
# Behind these a value is whole: it is no float that the next operation rounds to 8 bits, nor a sum that is still to be
# scaled, both of which OpenVINO would join to what is on the other side of the cut.
_WHOLE = frozenset({"Add", "Split", "VariadicSplit"})


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part as a model of OpenVINO's, and what goes in and comes out by name, in the order of its ports."""

    model: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def parts_for(model: Any) -> int:
    """In how many parts a model is compiled.

    As many on every processor: in bfloat16 sums come out a little differently behind a cut.
    """
    return max(1, min(MOST_PARTS, len(model.get_ops()) // PART_OPERATIONS))


def limits() -> tuple[int, int]:
    """What `parts_for` depends on, besides the model."""
    return MOST_PARTS, PART_OPERATIONS


def cut(model: Any, number: int) -> tuple[Part, ...]:
    """Take a model of known sizes apart into at most so many parts of about as many operations.

    Where nothing but whole values would cross, and of these as few bytes as possible.
    """
    graph = _Graph(model)
    return graph.parted([0, *graph.cuts(number), len(graph.order)])


class _Graph:
    """The operations in the order in which they run; constants, and what follows from them alone, belong to readers."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.order = model.get_ordered_ops()
        self.names = [op.get_friendly_name() for op in self.order]
        self.kinds = [op.get_type_name() for op in self.order]
        self.at = {name: index for index, name in enumerate(self.names)}
        self.constant: set[str] = set()
        self.last: dict[tuple[str, int], int] = {}
        for index, op in enumerate(self.order):
            read = [op.input_value(port) for port in range(op.get_input_size())]
            keys = [(value.get_node().get_friendly_name(), value.get_index()) for value in read]
            if self.kinds[index] != "Parameter" and all(name in self.constant for name, _ in keys):
                self.constant.add(self.names[index])
            self.last |= dict.fromkeys(keys, index)

    def cuts(self, number: int) -> list[int]:
        """Where the parts begin, but for the first."""
        length = len(self.order)
        crossing, broken = np.zeros(length + 1, np.int64), np.zeros(length + 1, np.int64)
        for (name, port), last in self.last.items():
            made = self.at[name]
            if name in self.constant or self.kinds[made] == "Parameter":
                continue
            value = self.order[made].output(port)
            crossing[made + 1 : last + 1] += prod(value.shape) * value.get_element_type().size
            broken[made + 1 : last + 1] += self.kinds[made] not in _WHOLE
        found = []
        for part in range(1, number):
            wanted, reach = length * part // number, length // (4 * number)
            near = [index for index in range(wanted - reach, wanted + reach) if index > 0 and not broken[index]]
            if near:
                found.append(min(near, key=lambda index: (crossing[index], abs(index - wanted))))
        return sorted(set(found))

    def parted(self, bounds: Sequence[int]) -> tuple[Part, ...]:
        """The model's own operations, the edges between parts replaced by results and parameters."""
        from openvino import Model, op

        numbers = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds)).tolist()
        part_of = dict(zip(self.names, numbers, strict=True))
        inputs: list[dict[str, Any]] = [{} for _ in bounds[1:]]
        outputs: list[dict[str, Any]] = [{} for _ in bounds[1:]]
        given = {port.get_node().get_friendly_name(): port.get_any_name() for port in self.model.inputs}
        for node, name, kind in zip(self.order, self.names, self.kinds, strict=True):
            own = part_of[name]
            for value in () if name in self.constant else node.outputs():
                key = given.get(name, f"{name}:{value.get_index()}")
                readers: dict[int, list[Any]] = {}
                for reader in value.get_target_inputs():
                    readers.setdefault(part_of[reader.get_node().get_friendly_name()], []).append(reader)
                if kind == "Parameter" and own in readers:
                    inputs[own][key] = node
                for part in sorted(readers.keys() - {own}):
                    inputs[part][key] = op.Parameter(value.get_element_type(), value.get_partial_shape())
                    for reader in readers[part]:
                        reader.replace_source_output(inputs[part][key].output(0))
                    if kind != "Parameter" and key not in outputs[own]:
                        outputs[own][key] = op.Result(value)
        for result in self.model.get_results():
            source = result.input_value(0).get_node().get_friendly_name()
            outputs[part_of[source]][result.output(0).get_any_name()] = result
        return tuple(
            Part(
                model=Model(list(made.values()), list(read.values()), f"{self.model.get_friendly_name()}-{number}"),
                inputs=tuple(read),
                outputs=tuple(made),
            )
            for number, (read, made) in enumerate(zip(inputs, outputs, strict=True))
        )


def compiled(parts: Sequence[Part], make: Callable[[Any], Any]) -> tuple[Part, ...]:
    """The same parts with what `make` compiles of their models, side by side. Its errors go through."""
    with ThreadPoolExecutor(len(parts), "pocketxl-compile") as side_by_side:
        models = side_by_side.map(lambda part: make(part.model), parts)
        return tuple(replace(part, model=model) for model, part in zip(models, parts, strict=True))


Steps = Sequence[tuple[Any, Part]]
"""OpenVINO's request for each part."""


class Compiled:
    """A model in parts that are compiled. Several threads may make requests."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._idle: list[Steps] = []

    def request(self) -> "Request":
        """What runs once."""
        try:
            steps = self._idle.pop()  # new ones would leave gaps in the heap, of 100 MB at 1024 x 1024
        except IndexError:
            steps = [(part.model.create_infer_request(), part) for part in self._parts]
        return Request(steps, self._idle.append)


class Request:
    """One run, which may be ended from another thread."""

    def __init__(self, steps: Steps, give_back: Callable[[Steps], None]) -> None:
        self._steps, self._give_back = steps, give_back
        self._stopped = False

    def run(self, inputs: Arrays, wanted: Sequence[str]) -> dict[str, np.ndarray]:
        """Copies of the outputs of these names.

        Raises `Ended` if it was stopped before its last part began, and OpenVINO's own errors.
        """
        values: dict[str, Any] = dict(inputs)
        for request, part in self._steps:
            if self._stopped:
                raise Ended
            # With a single thread `infer` does not hear of `cancel`.
            request.start_async({port: values[name] for port, name in enumerate(part.inputs)}, share_inputs=True)
            request.wait()
            values |= {name: request.get_output_tensor(port) for port, name in enumerate(part.outputs)}
        found = {name: np.array(values[name].data) for name in wanted}
        if not self._stopped:
            self._give_back(self._steps)
        return found

    def cancel(self) -> None:
        """Make `run` end soon, with an error."""
        self._stopped = True
        for request, _ in self._steps:
            request.cancel()
