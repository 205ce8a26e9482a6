"""The smallest U-Net with the numbers that a build would choose, as an engine, and what its stand-in is off by."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import nn

from pocketxl.engine.models.blocks import SelfAttention
from pocketxl.engine.models.unet import UNet
from pocketxl.engine.runners.ort_session import session_options
from pocketxl.engine.specs import Role
from pocketxl.export.quantize.choose import Layer, choose, measure_layers
from pocketxl.export.quantize.formats import Kind
from pocketxl.export.quantize.quantization import Quantization
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.quantize.rounded import Floats
from pocketxl.export.reference.parity import Figures, compare
from pocketxl.export.reference.streamed import StreamedModule
from pocketxl.export.targets import TARGETS
from pocketxl.export.targets.check import fitted

from ....fixtures.calibration import observe
from ....fixtures.onnx_run import StateDict
from ....fixtures.smallest import SMALLEST
from ..cpu.lowering import noise
from .lowering import Built, build

SPEC = SMALLEST.unet()
KINDS: dict[type[nn.Module], Kind] = {
    nn.Linear: Kind.LINEAR,
    nn.Conv2d: Kind.CONV,
    SelfAttention: Kind.ATTENTION,
}


@dataclass(frozen=True, eq=False, kw_only=True)
class Measured:
    """An engine, its numbers, and how far its stand-in is from torch on samples that were not watched."""

    built: Built
    numbers: Quantization
    figures: Figures
    layers: Mapping[str, Kind]
    """Those with a weight."""
    weights: int
    """Numbers of the network's weights."""


def measured_unet(recipe: str, out: Path, target: str = "rtx") -> Measured:
    """Observed, its numbers chosen, built and held to the reference."""
    torch.manual_seed(0)
    module = UNet(SMALLEST)
    state = StateDict(module.state_dict())
    reference = StreamedModule(lambda: UNet(SMALLEST), SPEC, state)
    known = chosen(module, reference, recipe, target)
    built = build("base/unet", module, lambda: UNet(SMALLEST), SPEC, out, target, recipe, known)
    session = onnxruntime.InferenceSession(built.onnx, session_options(onnxruntime, 1, patterns=True))
    unseen = [sample(7), sample(8, batch=2, height=8, width=24)]
    figures = compare(reference, lambda inputs: {"prediction": session.run(None, inputs)[0]}, unseen)
    kinds = {name: KINDS[type(layer)] for name, layer in module.named_modules() if type(layer) in KINDS}
    layers = {name: kind for name, kind in kinds.items() if kind is not Kind.ATTENTION}
    weights = sum(p.numel() for p in module.parameters())
    return Measured(built=built, numbers=known, figures=figures, layers=layers, weights=weights)


def chosen(module: nn.Module, reference: StreamedModule, recipe: str, target: str) -> Quantization:
    """As `export.lowering` does it, without smoothing."""
    row = fitted(RECIPES[recipe], TARGETS[target])
    seen = observe(reference, [sample(seed) for seed in range(2)])
    layers = [
        Layer(
            name=name,
            kind=KINDS[type(layer)],
            shape=(layer.heads,) if isinstance(layer, SelfAttention) else tuple(layer.weight.shape),
        )
        for name, layer in module.named_modules()
        if type(layer) in KINDS
    ]
    state = module.state_dict()

    def read(name: str) -> Floats | None:
        found: Any = state.get(name)
        return None if found is None else found.numpy()

    measured = measure_layers(layers, row, Role.UNET, read, seen, TARGETS[target], ladder=Role.UNET in row.bits)
    return choose(measured, row, Role.UNET, seen, goal=1.0)


def sample(seed: int, batch: int = 1, height: int = 16, width: int = 16) -> dict[str, np.ndarray]:
    """Random inputs."""
    sizes: dict[int | str, int] = {"batch": batch, "tokens": 7, "height": height, "width": width}
    return {
        t.name: noise(*(sizes.get(d, d) for d in t.shape), seed=100 * seed + i)  # type: ignore[arg-type]
        for i, t in enumerate(SPEC.inputs)
    }
