"""Between the two passes of a call: its pictures through the network, each tile a step of progress."""

from collections.abc import Sequence

from ..memory.plan import MemoryPlan
from ..memory.residency import Residency
from ..progress import Progress, track
from .enlarge import Pixels, enlarged, tiles_of
from .opened import OpenedUpscaler


def enlarged_pictures(
    upscaler: OpenedUpscaler,
    pictures: Sequence[Pixels],
    size: tuple[int, int],
    *,
    residency: Residency,
    plan: MemoryPlan,
    progress: Progress,
) -> tuple[Pixels, ...]:
    """Pictures (H, W, 3) of one size → those of (height, width) `size`. Raises `NumericError` for NaN or Inf."""
    network = upscaler.known.architecture
    total = sum(tiles_of(network, picture.shape[0], picture.shape[1], size) for picture in pictures)
    with (
        residency.phase(plan, upscaler.runner, progress),
        track(progress, "upscale", total=total, unit="tile") as advance,
    ):
        return tuple(enlarged(upscaler.runner, network, picture, size, advance) for picture in pictures)
