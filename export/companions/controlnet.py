"""ControlNet → a folder that is used beside an engine.

    build_controlnet("controlnet-canny-sdxl-1.0", Path("canny"), base="sd_xl_base_1.0.safetensors")

The same steps as an engine's build. It is calibrated, and its components are held to their samples, in a run of the
base that it is for; any engine whose widths fit can use it.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ...engine.companion import Companion, residuals
from ...engine.errors import IncompatibleError
from ...engine.progress import Progress, Silent, track
from ...engine.request.limits import integer
from ..build import BuildReport, build_job
from ..checkpoint.controlnet import ControlNetCheckpoint, open_controlnet
from ..components import Assembly, Component, assemble
from ..job import Job, calibration_size_of, digest_part, job_of, open_as, unread_bytes
from ..publish.digests import cached_digest
from ..quantize.recipes import find_recipe
from ..targets import find_target
from ..targets.check import check

if TYPE_CHECKING:
    from torch import nn

SOURCE = "control.network"
TARGETS = ("cpu",)
"""Those whose engines have the graphs that take what is beside them."""


def build_controlnet(
    source: str | Path,
    destination: Path,
    *,
    base: str | Path,
    target: str = "cpu",
    recipe: str | None = None,
    config: Path | None = None,
    base_config: Path | None = None,
    vae: Path | None = None,
    calibration_size: int | None = None,
    keep: Sequence[str] = (),
    strict: bool = False,
    force: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> BuildReport:
    """Build a ControlNet's folder at `destination`.

    `source`: a diffusers folder, or a single `.safetensors` file in diffusers' or the original layout. `base`: an SDXL
    base checkpoint, as `build` takes it, or a fine-tune that it is to be used with. `config`: a `config.json` for a
    single file that is of another size than SDXL's; `base_config`: as `build`'s `config`. The rest as in `build`;
    layers to keep have names such as `control/unet:conv_in`. Raises the errors of `engine.errors`.
    """
    progress = progress or Silent()
    if threads is not None:
        integer("threads", threads)
    if target not in TARGETS:
        raise IncompatibleError(f"ControlNets are built for {', '.join(TARGETS)} so far, not for {target}")
    chosen = find_target(target)
    asked = find_recipe(recipe or chosen.default_recipe)
    if strict:
        asked = replace(asked, ladder={})
    check(chosen, asked)
    opened, checkpoint = open_controlnet(source, config=config), open_as(base, "base", base_config, vae=vae)
    if misfit := opened.architecture.misfits(checkpoint.unet_architecture):
        raise IncompatibleError(f"{source} does not fit {base}: {misfit}; give the base that the ControlNet is for")
    unread = unread_bytes(checkpoint)
    with track(progress, "read", total=unread, unit="B") as advance:
        of_base = assemble(checkpoint, None, partial(digest_part, advance))
        weights = opened.weights
        digest = cached_digest(weights.files(), SOURCE, weights.digest)
    job: Job = job_of(
        _assembly(of_base, opened, digest),
        {name: checkpoint.tokenizer_files(name) for name in ("tokenizer", "tokenizer_2")},
        calibration_size_of(checkpoint, calibration_size),
        target=chosen,
        machine=chosen.machine(),
        recipe=asked,
        keep=keep,
    )
    return build_job(job, destination, force=force, threads=threads, progress=progress)


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
