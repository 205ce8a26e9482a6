"""What the manifest says of a program's places for low-rank pairs: `engine.folder.openings`."""

from collections.abc import Sequence

import onnx_ir as ir

from ....engine.folder.openings import OpenGraph, Openings, Shape
from ....engine.program.checks import words_of
from ....engine.program.program import Program
from ....engine.program.slots import RANKS, SLOTS_FILE, Slot, opened
from ....engine.specs import ComponentSpec
from ...graph.layers import find_layers
from ...graph.openings import ATTENTION, OTHERS, group_of
from ...graph.token_seam import vectors_input
from .memory import working_memory


def openings_of(
    slots: Sequence[Slot], model: ir.Model, program: Program, spec: ComponentSpec, architectures: Sequence[int]
) -> Openings | None:
    """One graph, whose layers have their calls only where they are needed. `model`: the master. None without slots."""
    if not slots:
        return None
    layers = {layer for slot in slots for layer in slot.layers}
    groups: dict[str, dict[str, Shape]] = {ATTENTION: {}, OTHERS: {}}
    for layer in find_layers(model.graph):
        if layer.name in layers:
            groups[group_of(layer.name)][layer.name] = tuple(int(side) for side in layer.weight.shape or ())
    every = opened(program, slots, layers)
    graph = OpenGraph(
        file=SLOTS_FILE,
        inputs=() if (table := words_of(program)) is None else (vectors_input(table.width),),
        groups=tuple(groups),
        activation=working_memory(every, spec, architectures, rank=RANKS[-1]),
    )
    return Openings(layers=groups, factors="", graphs=(graph,))
