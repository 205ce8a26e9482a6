"""Half of a VAE of random weights for a target on the processor, without the rest of an engine."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pocketxl.engine.architecture import VaeArchitecture
from pocketxl.engine.models.vae import VaeDecoder
from pocketxl.engine.models.vae_encoder import VaeEncoder
from pocketxl.engine.specs import Role
from pocketxl.export.graph.master import export_master
from pocketxl.export.quantize.calibration import Calibration
from pocketxl.export.quantize.choose import Layer, choose, measure_layers
from pocketxl.export.quantize.formats import Kind
from pocketxl.export.quantize.quantization import Quantization
from pocketxl.export.quantize.recipes import RECIPES, Recipe
from pocketxl.export.quantize.rounded import Floats
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
    """Write SDXL's `decoder` or `encoder` into `folder`, in the formats that one picture of `side` latents asks for."""
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
            numbers = _chosen(seen.take(), chosen, spec.role, weights, target)
    folder.mkdir(parents=True)
    model = export_master(f"vae_{half}", lambda: module_of(architecture), spec)
    target.lower(f"vae_{half}", spec, model, source, numbers, folder, folder)


def _chosen(seen: Calibration, recipe: Recipe, role: Role, weights: Mapping[str, Any], target: Target) -> Quantization:
    """As a build chooses: floats for what loses too much, by the estimate alone."""
    kinds = {4: Kind.CONV, 2: Kind.LINEAR}
    shapes = {name: tuple(weights[f"{name}.weight"].shape) for name in seen.layers}
    layers = [Layer(name=name, kind=kinds[len(shape)], shape=shape) for name, shape in shapes.items()]

    def read(name: str) -> Floats | None:
        return weights[name].numpy() if name in weights else None

    measured = measure_layers(layers, recipe, role, read, seen, target)
    return choose(measured, recipe, role, seen, goal=recipe.max_relative_error[role])
