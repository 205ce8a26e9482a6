"""Upscaler → a folder that is used beside any engine, or alone.

    build_upscaler("4x-model.safetensors", Path("my-upscaler"))

The same steps as an engine's build. It stays in floats, so nothing is calibrated and no base is needed.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from ...engine.companion import Companion
from ...engine.progress import Progress, track
from ...engine.upscaler import UPSCALER
from ..build import BuildReport
from ..checkpoint.upscaler import open_upscaler
from ..components import Assembly, Component
from ..publish.digests import cached_digest
from .building import Building

if TYPE_CHECKING:
    from torch import nn

RECIPE = "fp32"


def build_upscaler(
    source: str | Path,
    destination: Path,
    *,
    target: str = "cpu",
    force: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> BuildReport:
    """Build an upscaler's folder at `destination`.

    `source`: a `.safetensors` file of ESRGAN's network (RRDBNet, of any of its names) or of Real-ESRGAN's compact one,
    in float32 or less. The rest as in `build`. Raises the errors of `engine.errors`.
    """
    building = Building.of("upscalers", target=target, recipe=RECIPE, force=force, threads=threads, progress=progress)
    opened = open_upscaler(source)
    architecture, weights = opened.architecture, opened.weights

    def network() -> "nn.Module":
        from ...engine.models.upscaler import upscaler

        return upscaler(architecture)

    component = Component(
        name=UPSCALER,
        spec=architecture.component(),
        module=network,
        source=UPSCALER,
        configuration=architecture,
        part=weights,
    )
    with track(building.progress, "read", total=weights.bytes, unit="B") as advance:
        digest = cached_digest(weights.files(), UPSCALER, weights.digest)
        advance(weights.bytes)
    assembly = Assembly(
        checkpoints={},
        components={UPSCALER: component},
        text_encoders={},
        digests={UPSCALER: digest},
        companion=Companion(upscaler=architecture),
    )
    return building.build_without_base(assembly, destination)
