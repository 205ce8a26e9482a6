"""Scales of layers' inputs in int8, for recipes that know them before: what one call of a small picture shows.

A build takes them from denoising runs, and with care. Here the weights are random, and what counts is the time.
"""

from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from pocketxl.export.quantize.rounded import Floats

from .calls import Calls
from .cases import Case
from .inputs import inputs_of
from .networks import Network

PIXELS: Final = 256
STEPS: Final = 127


def input_scales(network: Network) -> dict[str, Floats]:
    """Layer → `[in channels]`, all of them the largest input's: int8 = round(x / scale)."""
    module = network.module(torch.float16 if network.device == "cuda" else torch.float32)
    largest: dict[str, float] = {}
    widths: dict[str, int] = {}

    def watch(name: str, layer: nn.Linear | nn.Conv2d) -> None:
        widths[name] = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels

        def seen(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            largest[name] = max(largest.get(name, 0.0), float(given[0].abs().max()))

        layer.register_forward_pre_hook(seen)

    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            watch(name, layer)
    inputs = inputs_of(Case(name="scales", network=network.name, size=PIXELS, batch=1), network)
    with torch.no_grad():
        Calls(module, inputs, next(module.parameters()).dtype)(inputs.latents, 0)
    return {name: np.full(widths[name], most / STEPS, np.float32) for name, most in largest.items()}
