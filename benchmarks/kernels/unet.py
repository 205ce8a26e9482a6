"""The calls of a whole U-Net as `pocketxl build --target cuda --recipe …` makes them, without weights."""

from functools import cache

from pocketxl.engine.program.calls import plan_of
from pocketxl.engine.program.program import Call
from pocketxl.engine.program.sizes import Sizes
from pocketxl.export.quantize.quantization import Quantization
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.targets.check import fitted
from pocketxl.export.targets.cuda.target import CudaTarget
from pocketxl.kernels.architecture import Architecture
from pocketxl.kernels.launch import LaunchPlan
from pocketxl.kernels.sdxl_layers import PIXELS_PER_LATENT, UNetName

from ..gpu.component import lowered_parts, numbers_of, parts_of
from ..gpu.networks import Network

RECIPE = "int8"


@cache
def unet_calls(model: UNetName, *, recipe: str = RECIPE, by_rows: bool = False) -> tuple[Call, ...]:
    """The calls of one forward of the published architecture, in order; sizes are symbols. Takes some seconds.

    Formats are the recipe's own: a build gives more bits to layers that lose too much, which only real weights tell.
    `by_rows`: as the program was when an H100 was at hand: all inputs rounded by rows, attention in halves.
    """
    parts, target = parts_of(Network(name=model, device="cpu")), CudaTarget(name="cuda", architectures=())
    numbers = numbers_of(recipe, parts, target)
    if by_rows:
        numbers = Quantization(recipe=fitted(RECIPES[recipe], target), role=numbers.role)
    return lowered_parts(parts, numbers).calls


def unet_plans(
    model: UNetName, arch: Architecture, *, size: int, batch: int, recipe: str = RECIPE, by_rows: bool = False
) -> list[LaunchPlan]:
    """The plan of every call. `size`: of the square picture, in pixels. `batch`: latents, 2 for one with guidance."""
    sizes = at(size=size, batch=batch)
    return [plan_of(call, sizes, arch) for call in unet_calls(model, recipe=recipe, by_rows=by_rows)]


def at(*, size: int, batch: int) -> Sizes:
    """The sizes of a forward, of a prompt of 77 tokens."""
    side = size // PIXELS_PER_LATENT
    return Sizes(batch=batch, height=side, width=side)
