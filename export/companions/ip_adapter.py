"""IP-Adapter and its image encoder → a folder that is used beside an engine.

    build_ip_adapter("ip-adapter-plus_sdxl_vit-h.safetensors", Path("pictures"), image_encoder="image_encoder",
                     base="sd_xl_base_1.0.safetensors")

The same steps as an engine's build; calibrated on drawn pictures, which need no base.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from ...engine.companion import Companion
from ...engine.progress import track
from ..build import BuildReport
from ..checkpoint.ip_adapter import IPAdapterCheckpoint, open_ip_adapter
from ..checkpoint.open import Checkpoint
from ..components import Assembly, Component
from ..job import open_as
from ..publish.digests import cached_digest
from .building import Building, BuildOptions

if TYPE_CHECKING:
    from torch import nn

ENCODER, PROJECTION = "image.encoder", "image.projection"


def build_ip_adapter(
    source: str | Path,
    destination: Path,
    *,
    image_encoder: str | Path,
    base: str | Path,
    base_config: Path | None = None,
    **how: Unpack[BuildOptions],
) -> BuildReport:
    """Build an IP-Adapter's folder at `destination`.

    `source`: its `.safetensors` file, plain or Plus. `image_encoder`: a folder of transformers'
    `CLIPVisionModelWithProjection`, the one that it was trained with. `base`: an SDXL base checkpoint, of which only
    the widths count; `base_config`: as `build`'s `config`. `how`: `target`, `recipe`, `keep`, `strict`, `force`,
    `threads` and `progress`, as in `build`. Raises the errors of `engine.errors`.
    """
    building = Building.of("IP-Adapters", **how)
    checkpoint = open_as(base, "base", base_config)
    opened = open_ip_adapter(source, image_encoder, checkpoint.unet_architecture)
    parts = {ENCODER: opened.encoder, PROJECTION: opened.weights}
    with track(building.progress, "read", total=sum(part.bytes for part in parts.values()), unit="B") as advance:
        digests = {}
        for name, part in parts.items():
            digests[name] = cached_digest(part.files(), name, part.digest)
            advance(part.bytes)
    return building.build(_assembly(checkpoint, opened, digests), checkpoint, destination)


def _assembly(base: Checkpoint, opened: IPAdapterCheckpoint, digests: dict[str, str]) -> Assembly:
    architecture = opened.architecture

    def encoder() -> "nn.Module":
        from ...engine.models.vision import ImageEncoder

        return ImageEncoder(architecture)

    def projection() -> "nn.Module":
        from ...engine.models.image_prompt import ImageProjection

        return ImageProjection(architecture)

    made = {
        "image_prompt/encoder": (encoder, ENCODER, opened.encoder),
        "image_prompt/projection": (projection, PROJECTION, opened.weights),
    }
    specs = architecture.components()
    return Assembly(
        checkpoints={"base": base},
        components={
            name: Component(
                name=name, spec=specs[name], module=module, source=source, configuration=architecture, part=part
            )
            for name, (module, source, part) in made.items()
        },
        text_encoders={"base": tuple(base.text_encoder_architectures)},
        digests=digests,
        companion=Companion(ip_adapter=architecture),
    )
