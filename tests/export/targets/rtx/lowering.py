"""Small networks through an `rtx` target, and what their engines' programs say: what this folder's tests share."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch import nn

from pocketxl.engine.compiled.program import Compiled
from pocketxl.engine.compiled.read import read_compiled
from pocketxl.engine.specs import ComponentSpec
from pocketxl.export.graph.master import export_master
from pocketxl.export.quantize.quantization import Quantization
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.target import Lowered, Target
from pocketxl.export.targets import TARGETS
from pocketxl.export.targets.check import fitted

from ....fixtures.onnx_run import StateDict


@dataclass(frozen=True, kw_only=True)
class Built:
    """An engine, the ONNX file that it was built from, its program, and what lowering says of it."""

    engine: Path
    onnx: Path
    compiled: Compiled
    lowered: Lowered

    @property
    def nodes(self) -> list[ir.Node]:
        """Those of the ONNX file."""
        return list(ir.load(self.onnx).graph)

    def operators(self, op: str) -> int:
        """How many nodes of a kind there are."""
        return sum(node.op_type == op for node in self.nodes)


def build(
    name: str,
    module: nn.Module,
    factory: Callable[[], nn.Module],
    spec: ComponentSpec,
    out: Path,
    target: str | Target = "rtx-sm89",
    recipe: str = "fp16",
    known: Quantization | None = None,
) -> Built:
    """The module as an engine in `out`, with its own weights; `known`: what was found out about its layers."""
    model = export_master(name, factory, spec, dtype=torch.float16)
    lowered = lower_master(name, model, spec, module, out, target, recipe, known=known)
    compiled = read_compiled(out / "model.engine")
    assert compiled is not None
    assert lowered.stand_in is not None
    return Built(engine=out / "model.engine", onnx=lowered.stand_in, compiled=compiled, lowered=lowered)


def lower_master(
    name: str,
    model: ir.Model,
    spec: ComponentSpec,
    module: nn.Module,
    out: Path,
    target: str | Target = "rtx-sm89",
    recipe: str = "fp16",
    known: Quantization | None = None,
    **more: Any,
) -> Lowered:
    """A master through the target."""
    (out / "aside").mkdir()
    chosen = TARGETS[target] if isinstance(target, str) else target
    known = known or Quantization(recipe=fitted(RECIPES[recipe], chosen), role=spec.role)
    weights = StateDict(module.state_dict())
    return chosen.lower(name, spec, model, weights, known, out, out / "aside", **more)
