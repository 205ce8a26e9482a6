"""Half of a VAE of random weights for a target on the processor, without the rest of an engine."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pocketxl.engine.architecture import VaeArchitecture
from pocketxl.engine.models.vae import VaeDecoder
from pocketxl.engine.models.vae_encoder import VaeEncoder
from pocketxl.engine.specs import Role
from pocketxl.export.graph.master import export_master
from pocketxl.export.quantize.calibration import LayerStatistics
from pocketxl.export.quantize.formats import Kind
from pocketxl.export.quantize.quantization import Quantization
from pocketxl.export.quantize.ranges import fit_ranges
from pocketxl.export.quantize.recipes import RECIPES, Recipe
from pocketxl.export.quantize.signed_ranges import fit_signed
from pocketxl.export.reference.calibrate import ROWS, watch
from pocketxl.export.reference.streamed import StreamedModule
from pocketxl.export.target import Target
from pocketxl.export.targets.check import fitted
from pocketxl.export.targets.cpu.target import CpuTarget
from pocketxl.export.targets.openvino.target import OpenVinoTarget

TARGETS: Mapping[str, Target] = {"cpu": CpuTarget(), "openvino": OpenVinoTarget()}


class Tensors:
    """Weights by name, as lowering reads them."""

    def __init__(self, weights: Mapping[str, Any]) -> None:
        self._weights = weights

    def tensor(self, name: str) -> Any:
        """The tensor itself."""
        return self._weights[name]


def lower_vae(folder: Path, half: str, recipe: str, weights: Mapping[str, Any], side: int, target: Target) -> None:
    """Write SDXL's `decoder` or `encoder` into `folder`; ranges are what one picture of `side` latents shows."""
    architecture, source = VaeArchitecture(), Tensors(weights)
    decodes = half == "decoder"
    spec, module_of = (architecture.decoder(), VaeDecoder) if decodes else (architecture.encoder(), VaeEncoder)
    target = target.of(spec.role)
    chosen = target.suited(fitted(RECIPES[recipe], target), architecture)
    numbers = Quantization(recipe=chosen, role=spec.role)
    if decodes and chosen.quantizes(spec.role):
        module = StreamedModule(lambda: VaeDecoder(architecture), spec, source)
        with watch(module, ROWS) as seen:
            module({"latents": np.random.default_rng(0).standard_normal((1, 4, side, side), dtype=np.float32)})
            numbers = replace(numbers, **_fitted(seen.take().layers, chosen, spec.role, weights))
    folder.mkdir(parents=True)
    model = export_master(f"vae_{half}", lambda: module_of(architecture), spec)
    target.lower(f"vae_{half}", spec, model, source, numbers, folder, folder)


def _fitted(
    layers: Mapping[str, LayerStatistics], recipe: Recipe, role: Role, weights: Mapping[str, Any]
) -> dict[str, Any]:
    """Ranges of the convolutions, in the form that their formats want."""
    ranges: dict[str, Any] = {"ranges": {}, "input_scales": {}}
    for name, layer in layers.items():
        weight = weights[f"{name}.weight"]
        format = recipe.format(role, Kind.CONV, name)
        if weight.ndim == 4 and format.signed:
            ranges["input_scales"][name] = fit_signed(name, weight.flatten(1).numpy(), layer, format)
        elif weight.ndim == 4:
            ranges["ranges"][name] = fit_ranges(weight.flatten(1).numpy(), weights[f"{name}.bias"].numpy(), layer)
    return ranges
