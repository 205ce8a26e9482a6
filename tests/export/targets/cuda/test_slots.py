"""Low-rank pairs in a program's slots: what the calls compute, against the network with the pairs in its weights."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from pocketxl.engine.folder.openings import pair_inputs
from pocketxl.engine.program.program import Program
from pocketxl.engine.program.sizes import Sizes
from pocketxl.engine.program.slots import RANKS, Slot, opened
from pocketxl.engine.runners.cuda_slots import rank_for, slot_arrays
from pocketxl.export.components import Component
from pocketxl.export.graph.layers import find_layers
from pocketxl.export.graph.master import export_master
from pocketxl.export.targets.cuda.component import Lowering, lowered

from .lowering import call, inputs_for, miniature, module_of, run, stored
from .test_calls import ALLOWED, four_by_eight_bits

SIZES = Sizes(batch=2, height=9, width=14, tokens=77)
RANK = 5
Pairs = Mapping[str, tuple[np.ndarray, np.ndarray]]


def pairs_for(shapes: Mapping[str, tuple[int, ...]], *, size: float = 0.5) -> Pairs:
    """Random ones of any layers, which change a layer's output by about so much of what it is."""
    random = np.random.default_rng(5)
    found = {}
    for layer, shape in shapes.items():
        down, up = pair_inputs(layer, shape)
        depth = int(np.prod(shape[1:]))
        sizes = [[RANK if isinstance(side, str) else side for side in tensor.shape] for tensor in (down, up)]
        arrays = [random.standard_normal(side).astype(np.float32) for side in sizes]
        found[layer] = (arrays[0] / depth**0.5, arrays[1] * np.float32(size / RANK**0.5))
    return found


def held_for(slots: Sequence[Slot], pairs: Pairs, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    rank = rank_for(pairs)
    assert rank == RANKS[0]
    chosen = [slot for slot in slots if not pairs.keys().isdisjoint(slot.layers)]
    return {name: array for slot in chosen for name, array in slot_arrays(slot, pairs, shapes, rank).items()}


def program_of(lowering: Lowering) -> Program:
    return Program(inputs=lowering.inputs, outputs=lowering.outputs, calls=lowering.calls)


def merged(component: Component, pairs: Pairs) -> torch.nn.Module:
    """The network in float32 with the pairs in its weights."""
    module = module_of(component)
    state = dict(module.state_dict())
    for layer, (down, up) in pairs.items():
        weight = state[f"{layer}.weight"]
        rows, columns = (down.T, up.T) if down.ndim == 2 else (down.reshape(len(down), -1), up[:, :, 0, 0])
        state[f"{layer}.weight"] = weight + torch.from_numpy(columns @ rows).view_as(weight)
    module.load_state_dict(state, assign=True)
    return module


@pytest.mark.parametrize(
    ("formats", "part"),
    [
        *product([f for f in ALLOWED if f is not four_by_eight_bits], ["attn1", "ff.net", "resnets", ""]),
        (four_by_eight_bits, ""),  # a slot beside each of its layers is as in 8 bits
    ],
    ids=lambda given: given if isinstance(given, str) else given.__name__,
)
def test_pairs_add_what_they_add_in_floats(part: str, formats: Any) -> None:
    """As exactly as the network is without them."""
    component = miniature().components["base/unet"]
    master = export_master(component.name, component.module, component.spec, dtype=torch.float16)
    lowering = lowered(master, component.spec, formats, slotted=True)
    there = {layer for slot in lowering.slots for layer in slot.layers}
    every = {layer.name: layer.weight.shape for layer in find_layers(master.graph)}
    assert there == every.keys() - {"conv_out"}
    shapes = {name: tuple(int(side) for side in shape or ()) for name, shape in every.items() if name in there}
    pairs = pairs_for({name: shape for name, shape in shapes.items() if part in name})
    assert pairs
    inputs = inputs_for(component.spec, SIZES)
    held = {n: torch.from_numpy(a) for n, a in held_for(lowering.slots, pairs, shapes).items()}
    program = opened(program_of(lowering), lowering.slots, pairs)
    weights = stored(component, lowering) | held
    found = run(replace(lowering, calls=program.calls), weights, inputs, replace(SIZES, rank=RANKS[0]))["prediction"]
    modules = merged(component, pairs), module_of(component)
    truth, plain = (call(module, component.spec, inputs)["prediction"] for module in modules)
    assert (truth - plain).norm() > 0.2 * plain.norm(), "pairs do something"
    error = float((found - truth).norm() / truth.norm())
    assert error < ALLOWED[formats], error
