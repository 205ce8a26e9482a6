"""Components of the trained miniature as calls, and what they compute: what this folder's tests share."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import pocketxl.export.miniature
from pocketxl.engine.program.program import Edge, Layout
from pocketxl.engine.program.sizes import Sizes
from pocketxl.engine.specs import ComponentSpec
from pocketxl.export.checkpoint.open import open_checkpoint
from pocketxl.export.components import Assembly, Component, assemble
from pocketxl.export.graph.master import export_master
from pocketxl.export.quantize.quantization import Quantization
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.targets.cuda.component import Lowering, lowered
from pocketxl.export.targets.cuda.forms import FormatOf
from pocketxl.export.targets.cuda.stored import Packer

from ....fixtures.cuda_reference import Seen, run_calls

WEIGHTS = Path(pocketxl.export.miniature.__file__).parent / "weights"


@cache
def miniature() -> Assembly:
    """The miniature's components."""
    base, refiner = (open_checkpoint(WEIGHTS / kind) for kind in ("base", "refiner"))
    return assemble(base, refiner, lambda checkpoint, part: f"{checkpoint.kind}.{part}")


def lower(component: Component, format_of: FormatOf) -> Lowering:
    """The calls of a component."""
    master = export_master(component.name, component.module, component.spec, dtype=torch.float16)
    return lowered(master, component.spec, format_of)


def stored(component: Component, lowering: Lowering, numbers: Quantization | None = None) -> dict[str, Tensor]:
    """What the calls read besides values; `numbers`: where steps of inputs were calibrated."""
    packer = Packer(component.weights, numbers or Quantization(recipe=RECIPES["fp16"], role=component.spec.role))
    return {name: torch.from_numpy(np.ascontiguousarray(packer.array(one))) for name, one in lowering.stored.items()}


def module_of(component: Component) -> nn.Module:
    """The component in float32, with its weights."""
    with torch.device("meta"):
        module = component.module()
    state = {name: component.weights.tensor(name).float() for name in module.state_dict()}
    module.load_state_dict(state, assign=True)
    return module.eval()


def inputs_for(spec: ComponentSpec, sizes: Sizes, *, seed: int = 0) -> dict[str, Tensor]:
    """Normal inputs, of halves' numbers so that nothing is lost when they are written as such."""
    lengths = {"batch": sizes.batch, "height": sizes.height, "width": sizes.width, "tokens": sizes.tokens}
    random = torch.Generator().manual_seed(seed)
    return {
        tensor.name: torch.randn([lengths[d] if isinstance(d, str) else d for d in tensor.shape], generator=random)
        .half()
        .float()
        for tensor in spec.inputs
    }


def run(
    lowering: Lowering,
    weights: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor],
    sizes: Sizes,
    seen: Seen | None = None,
) -> dict[str, Tensor]:
    """The outputs of the calls by the references of their ops, as the spec has them; `seen`: see `run_calls`."""
    values = dict(weights)
    for edge in lowering.inputs:
        values |= written(edge, inputs[edge.tensor])
    found = run_calls(lowering.calls, values, sizes, seen)
    return {edge.tensor: found[edge.values[0].name].permute(0, 3, 1, 2) for edge in lowering.outputs}


def written(edge: Edge, value: Tensor) -> dict[str, Tensor]:
    """An input as the values that it is in a program."""
    if edge.layout is Layout.ROWS:
        (one,) = edge.values
        return {one.name: value.to(getattr(torch, one.dtype))}
    assert edge.layout is Layout.COLUMNS
    widths: list[Any] = [one.shape[1] for one in edge.values]
    parts = torch.split(value, widths, 1)
    return {one.name: part.half().contiguous() for one, part in zip(edge.values, parts, strict=True)}


def call(module: nn.Module, spec: ComponentSpec, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The module's own outputs."""
    arguments: dict[str, Any] = {}
    for tensor in spec.inputs:
        group, dot, _ = tensor.name.partition(".")
        if dot:
            arguments.setdefault(group, []).append(inputs[tensor.name])
        else:
            arguments[group] = inputs[tensor.name]
    with torch.no_grad():
        result = module(**arguments)
    results = result if isinstance(result, tuple) else (result,)
    return {tensor.name: one for tensor, one in zip(spec.outputs, results, strict=True)}
