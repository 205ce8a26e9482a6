"""What it takes to make a first pass's pictures larger by a network."""

from ..runners.base import Runner, Sizes
from ..upscaler import UPSCALER, UpscalerArchitecture, held_bytes, tile_pixels
from .phase import Phase
from .workload import Workload

_LATENT_PIXELS = 64
"""A component's working memory is told for a picture of so many pixels for each of what its graph reads."""
_FLOAT = 4
_PILLOW = 4
"""Bytes of a pixel of Pillow's own."""


def phases(workload: Workload, held: int) -> list[Phase]:
    """The phase, if there is one. `held`: what the pipeline holds besides, latents among it."""
    before, network = workload.before, workload.enlarged_by
    if before is None or network is None:
        return []
    small, large = 3 * before.pixels, 3 * workload.pixels
    held += workload.images * ((1 + _FLOAT) * small + large)
    held += held_bytes(network, before.height, before.width, (workload.height, workload.width))
    return [Phase(name="upscale", component=UPSCALER, held_bytes=held)]


def sizes(workload: Workload) -> Sizes:
    """Of one call of the network: a tile."""
    before, network = workload.before, workload.enlarged_by
    assert before is not None
    assert network is not None
    return _sizes(network, before.height, before.width, (workload.height, workload.width))


def enlarging_bytes(
    runner: Runner, network: UpscalerArchitecture, height: int, width: int, wanted: tuple[int, int]
) -> int:
    """Predicted peak on the host of enlarging one picture and nothing else; the picture as it came in counts too."""
    footprint = runner.footprint(_sizes(network, height, width, wanted))
    held = held_bytes(network, height, width, wanted) + _PILLOW * height * width
    return runner.device.overhead.get("host", 0) + footprint.weights + footprint.working + held


def _sizes(network: UpscalerArchitecture, height: int, width: int, wanted: tuple[int, int]) -> Sizes:
    return Sizes(rows=1, tokens=0, steps=0, pixels=_LATENT_PIXELS * tile_pixels(network, height, width, wanted))
