"""The numbers that `pocketxl build --target cuda --recipe int8` gives a U-Net: what this folder's tests share.

Scales of channels behind attention and GEGLU, and 8-bit scores, each by what the module has shown in float32. Weights
are not smoothed before, and none is rounded to make up for what inputs lose: neither changes which kernels run.
"""

import math

from torch import nn

from pocketxl.engine.architecture import UNetArchitecture
from pocketxl.engine.models.blocks import SelfAttention
from pocketxl.engine.specs import Role
from pocketxl.export.graph.master import WeightSource
from pocketxl.export.quantize.attention_places import has_tokens
from pocketxl.export.quantize.calibration import Calibration
from pocketxl.export.quantize.choose import Layer, choose, measure_layers
from pocketxl.export.quantize.formats import A8_SCORES_TOKEN, W8A8_SIGNED, Kind
from pocketxl.export.quantize.quantization import Quantization
from pocketxl.export.quantize.recipes import RECIPES, Recipe
from pocketxl.export.quantize.rounded import Floats
from pocketxl.export.targets.check import fitted
from pocketxl.export.targets.cuda.target import CudaTarget

TARGET = CudaTarget(name="cuda", architectures=())


def calibrated(
    module: nn.Module, architecture: UNetArchitecture, weights: WeightSource, seen: Calibration
) -> Quantization:
    """The numbers of a U-Net (`module`: on the meta device) that has shown this; a layer may have more bits by it."""
    recipe = TARGET.suited(fitted(RECIPES["int8"], TARGET), architecture)
    there = module.state_dict().keys()

    def read(name: str) -> Floats | None:
        return weights.tensor(name).float().numpy() if name in there else None

    measured = measure_layers(
        _layers(module, architecture, recipe), recipe, Role.UNET, read, seen, TARGET, ladder=False
    )
    return choose(measured, recipe, Role.UNET, seen, goal=math.inf)


def layers_with(numbers: Quantization) -> tuple[int, int]:
    """How many linear layers have calibrated scales of channels, and how many attentions 8-bit scores."""
    return (
        sum(format == W8A8_SIGNED for format in numbers.assigned.values()),
        sum(numbers.format(Kind.ATTENTION, name) == A8_SCORES_TOKEN for name in numbers.attentions),
    )


def _layers(module: nn.Module, architecture: UNetArchitecture, recipe: Recipe) -> list[Layer]:
    """Those whose numbers are found in what was seen; the others' formats are the recipe's."""
    levels, side = len(architecture.block_out_channels), architecture.sample_size
    found = []
    for name, child in module.named_modules():
        if isinstance(child, SelfAttention) and has_tokens(name, levels, side):
            found.append(Layer(name=name, kind=Kind.ATTENTION, shape=(child.heads,)))
        elif isinstance(child, nn.Linear) and recipe.format(Role.UNET, Kind.LINEAR, name).signed:
            found.append(Layer(name=name, kind=Kind.LINEAR, shape=tuple(child.weight.shape)))
    return found
