"""T2I adapter → a folder that is used beside an engine.

    build_t2i_adapter("t2i-adapter-sketch-sdxl-1.0", Path("sketch"), base="sd_xl_base_1.0.safetensors")

The same steps as an engine's build; calibrated on drawn hints, which need no base.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from ...engine.companion import Companion
from ...engine.errors import IncompatibleError
from ...engine.progress import track
from ..build import BuildReport
from ..checkpoint.open import Checkpoint
from ..checkpoint.t2i_adapter import T2IAdapterCheckpoint, open_t2i_adapter
from ..components import Assembly, Component
from ..job import open_as
from ..publish.digests import cached_digest
from .building import Building, BuildOptions

if TYPE_CHECKING:
    from torch import nn

SOURCE = "t2i.adapter"


def build_t2i_adapter(
    source: str | Path,
    destination: Path,
    *,
    base: str | Path,
    base_config: Path | None = None,
    **how: Unpack[BuildOptions],
) -> BuildReport:
    """Build a T2I adapter's folder at `destination`.

    `source`: a diffusers folder, or a single `.safetensors` file. `base`: an SDXL base checkpoint, of which only the
    widths count; `base_config`: as `build`'s `config`. `how`: `target`, `recipe`, `keep`, `strict`, `force`, `threads`
    and `progress`, as in `build`. Raises the errors of `engine.errors`.
    """
    building = Building.of("T2I adapters", **how)
    checkpoint, opened = open_as(base, "base", base_config), open_t2i_adapter(source)
    if misfit := opened.architecture.misfits(checkpoint.unet_architecture):
        raise IncompatibleError(f"{source} does not fit {base}: {misfit}; give the base that the adapter is for")
    weights = opened.weights
    with track(building.progress, "read", total=weights.bytes, unit="B") as advance:
        digest = cached_digest(weights.files(), SOURCE, weights.digest)
        advance(weights.bytes)
    return building.build(_assembly(checkpoint, opened, digest), checkpoint, destination)


def _assembly(base: Checkpoint, opened: T2IAdapterCheckpoint, digest: str) -> Assembly:
    architecture = opened.architecture

    def encoder() -> "nn.Module":
        from ...engine.models.t2i_adapter import T2IAdapter

        return T2IAdapter(architecture)

    return Assembly(
        checkpoints={"base": base},
        components={
            name: Component(
                name=name,
                spec=spec,
                module=encoder,
                source=SOURCE,
                configuration=architecture,
                part=opened.weights,
            )
            for name, spec in architecture.components().items()
        },
        text_encoders={"base": tuple(base.text_encoder_architectures)},
        digests={SOURCE: digest},
        companion=Companion(t2i_adapter=architecture),
    )
