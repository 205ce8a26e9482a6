"""ControlNet → a folder that is used beside an engine.

    build_controlnet("controlnet-canny-sdxl-1.0", Path("canny"), base="sd_xl_base_1.0.safetensors")

The same steps as an engine's build. It is calibrated, and its components are held to their samples, in a run of the
base that it is for; any engine whose widths fit can use it.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from ...engine.companion import Companion, residuals
from ...engine.errors import IncompatibleError
from ...engine.progress import track
from ..build import BuildReport
from ..checkpoint.controlnet import ControlNetCheckpoint, open_controlnet
from ..components import Assembly, Component, assemble
from ..job import open_as
from ..part_digests import digest_part, unread_bytes
from ..publish.digests import cached_digest
from .building import Building, BuildOptions

if TYPE_CHECKING:
    from torch import nn

SOURCE = "control.network"


def build_controlnet(
    source: str | Path,
    destination: Path,
    *,
    base: str | Path,
    config: Path | None = None,
    base_config: Path | None = None,
    vae: Path | None = None,
    calibration_size: int | None = None,
    **how: Unpack[BuildOptions],
) -> BuildReport:
    """Build the folder of a ControlNet, or of a ControlNet-Union, at `destination`.

    `source`: a diffusers folder, or a single `.safetensors` file in diffusers' or the original layout. `base`: an SDXL
    base checkpoint, as `build` takes it, or a fine-tune that it is to be used with. `config`: a `config.json` for a
    single file that is of another size than SDXL's; `base_config`: as `build`'s `config`. `how`: `target`, `recipe`,
    `keep`, `strict`, `force`, `threads` and `progress`, as `vae` and `calibration_size` as in `build`; layers to keep
    have names such as `control/unet:conv_in`. Raises the errors of `engine.errors`.
    """
    building = Building.of("ControlNets", **how)
    opened, checkpoint = open_controlnet(source, config=config), open_as(base, "base", base_config, vae=vae)
    if misfit := opened.architecture.misfits(checkpoint.unet_architecture):
        raise IncompatibleError(f"{source} does not fit {base}: {misfit}; give the base that the ControlNet is for")
    unread = unread_bytes(checkpoint)
    with track(building.progress, "read", total=unread, unit="B") as advance:
        of_base = assemble(checkpoint, None, partial(digest_part, advance))
        weights = opened.weights
        digest = cached_digest(weights.files(), SOURCE, weights.digest)
    return building.build(_assembly(of_base, opened, digest), checkpoint, destination, calibration_size)


def _assembly(base: Assembly, opened: ControlNetCheckpoint, digest: str) -> Assembly:
    components, unet = controlnet_components(opened), base.components["base/unet"]
    added = residuals(opened.architecture)
    return replace(
        base,
        components={component.name: component for component in components},
        digests={**base.digests, SOURCE: digest},
        companion=Companion(controlnet=opened.architecture),
        beside={
            **base.components,
            unet.name: replace(unet, spec=replace(unet.spec, inputs=(*unet.spec.inputs, *added))),
        },
    )


def controlnet_components(opened: ControlNetCheckpoint) -> list[Component]:
    """The parts of a ControlNet, in running order."""
    architecture = opened.architecture

    def hint_encoder() -> "nn.Module":
        if architecture.control_types:
            from ...engine.models.union import UnionHintEncoder

            return UnionHintEncoder(architecture)
        from ...engine.models.controlnet import HintEncoder

        return HintEncoder(architecture)

    def conditioner() -> "nn.Module":
        from ...engine.models.conditioner import Conditioner

        return Conditioner(architecture, control_types=architecture.control_types)

    def network() -> "nn.Module":
        from ...engine.models.controlnet import ControlNet

        return ControlNet(architecture)

    modules = {"control/hint_encoder": hint_encoder, "control/conditioner": conditioner, "control/unet": network}
    return [
        Component(
            name=name,
            spec=spec,
            module=modules[name],
            source=SOURCE,
            configuration=architecture,
            part=opened.weights,
        )
        for name, spec in architecture.components().items()
    ]
