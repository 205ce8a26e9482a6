"""Half of a VAE of random weights for the cpu target, without the rest of an engine."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pocketxl.engine.architecture import VaeArchitecture
from pocketxl.engine.models.vae import VaeDecoder
from pocketxl.engine.models.vae_encoder import VaeEncoder
from pocketxl.export.graph.master import export_master
from pocketxl.export.quantize.quantization import Quantization
from pocketxl.export.quantize.ranges import fit_ranges
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.reference.calibrate import ROWS, watch
from pocketxl.export.reference.streamed import StreamedModule
from pocketxl.export.targets.check import fitted
from pocketxl.export.targets.cpu.target import CpuTarget


class Tensors:
    """Weights by name, as lowering reads them."""

    def __init__(self, weights: Mapping[str, Any]) -> None:
        self._weights = weights

    def tensor(self, name: str) -> Any:
        """The tensor itself."""
        return self._weights[name]


def lower_vae(folder: Path, half: str, recipe: str, weights: Mapping[str, Any], side: int) -> None:
    """Write SDXL's `decoder` or `encoder` into `folder`; ranges are what one picture of `side` latents shows."""
    architecture, source = VaeArchitecture(), Tensors(weights)
    decodes = half == "decoder"
    spec, module_of = (architecture.decoder(), VaeDecoder) if decodes else (architecture.encoder(), VaeEncoder)
    chosen = CpuTarget().suited(fitted(RECIPES[recipe], CpuTarget()), architecture)
    ranges = {}
    if decodes and chosen.quantizes(spec.role):
        module = StreamedModule(lambda: VaeDecoder(architecture), spec, source)
        with watch(module, ROWS) as seen:
            module({"latents": np.random.default_rng(0).standard_normal((1, 4, side, side), dtype=np.float32)})
            layers = seen.take().layers
        ranges = {
            name: fit_ranges(weights[f"{name}.weight"].flatten(1).numpy(), weights[f"{name}.bias"].numpy(), layer)
            for name, layer in layers.items()
            if weights[f"{name}.weight"].ndim == 4
        }
    folder.mkdir(parents=True)
    model = export_master(f"vae_{half}", lambda: module_of(architecture), spec)
    numbers = Quantization(recipe=chosen, role=spec.role, ranges=ranges)
    CpuTarget().lower(f"vae_{half}", spec, model, source, numbers, folder, folder)
