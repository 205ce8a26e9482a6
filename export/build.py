"""Checkpoint → engine folder: the order of the steps.

    report = build("sd_xl_base_1.0.safetensors", Path("my-engine"), refiner="sd_xl_refiner_1.0.safetensors")

open → key → trace and lower each component → gate → publish. A build that was interrupted goes on at the component
where it stopped; one whose result is there already ends at once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..engine.architecture import Models
from ..engine.errors import IncompatibleError, RequestError
from ..engine.folder.files import FileEntry
from ..engine.folder.manifest import ActivationModel, ComponentEntry, Manifest
from ..engine.memory.plan import LEAST
from ..engine.pipeline import Pipeline
from ..engine.progress import Progress, Silent, track
from ..engine.runners import open_runners
from ..engine.text.tokenizer import Tokenizer, tokenizer_of
from .checkpoint.open import Checkpoint, open_checkpoint
from .components import Component, assemble
from .publish.keys import build_parts, cached_digest, component_key
from .publish.workspace import Finished, Workspace, find_engine, workspace
from .quantize.recipes import Recipe, find_recipe
from .quantize.size import engine_bytes
from .reference.run import Reference, run_reference, short_run, skeleton
from .target import Target
from .targets import find_target
from .targets.check import check

CALIBRATION_PIXELS = 512
"""Width and height of the reference run, unless the model is smaller: a full-size one takes 10 s a call at 512² on two
cores and four times that at 1024², and ranges of activations behind normalisation layers hardly change with size."""

MOST_CALIBRATION_PIXELS = 2048


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """What a build did. `reasons`: why it could not use what was there; empty if it could (`cached`)."""

    folder: Path
    manifest: Manifest
    cached: bool
    reasons: tuple[str, ...]


def build(
    source: str | Path,
    destination: Path,
    *,
    refiner: str | Path | None = None,
    target: str = "cpu",
    recipe: str | None = None,
    config: Path | None = None,
    refiner_config: Path | None = None,
    calibration_size: int | None = None,
    progress: Progress | None = None,
) -> BuildReport:
    """Build an engine folder at `destination` from an SDXL base checkpoint, and a refiner's if there is one.

    `source`, `refiner`: diffusers folder, single-file `.safetensors` in the original layout, or hub id. `config`,
    `refiner_config`: diffusers folders that describe single files which are not public SDXL. `recipe`: None for the
    target's own default. `calibration_size`:
    pixels (None: the model's native size, 512 at most). Raises the errors of `engine.errors`; the destination then is
    as it was.
    """
    progress = progress or Silent()
    if refiner_config is not None and refiner is None:
        raise RequestError("refiner_config describes a refiner, and there is none; give the refiner too")
    chosen = find_target(target)
    asked = find_recipe(recipe or chosen.default_recipe)
    check(chosen, asked)
    job = _Job(
        base=_open(source, "base", config),
        refiner=None if refiner is None else _open(refiner, "refiner", refiner_config),
        target=chosen,
        recipe=asked,
        calibration_size=calibration_size,
        progress=progress,
    )
    found, reasons = find_engine(destination, job.parts)
    if found is not None:
        return BuildReport(folder=destination, manifest=found, cached=True, reasons=())
    with workspace(destination, keys=job.keys, bytes_needed=job.bytes_needed) as space:
        manifest = job.make(space)
        with track(progress, "publish", total=1, unit="folder") as advance:
            space.publish(manifest)
            advance()
    return BuildReport(folder=destination, manifest=manifest, cached=False, reasons=tuple(reasons))


def _open(source: str | Path, kind: str, config: Path | None) -> Checkpoint:
    checkpoint = open_checkpoint(source, config=config)
    if checkpoint.kind != kind:
        other = "give it as --refiner, beside a base" if kind == "base" else "give it as the source, not as --refiner"
        raise IncompatibleError(f"{source} is a {checkpoint.kind}, not a {kind}; {other}")
    return checkpoint


class _Job:
    """One build: what it is made from, and the steps that make it."""

    def __init__(
        self,
        *,
        base: Checkpoint,
        refiner: Checkpoint | None,
        target: Target,
        recipe: Recipe,
        calibration_size: int | None,
        progress: Progress,
    ) -> None:
        self.target, self.recipe, self.progress = target, recipe, progress
        native = base.architecture.unet.sample_size * base.vae_architecture.downscale
        self.size = min(native, CALIBRATION_PIXELS) if calibration_size is None else calibration_size
        if not 8 <= self.size <= MOST_CALIBRATION_PIXELS or self.size % 8:
            raise RequestError(
                f"calibration size is {self.size}; it must be a multiple of 8 from 8 to {MOST_CALIBRATION_PIXELS}"
            )
        with track(progress, "read", total=None, unit="checkpoint"):
            self.assembly = assemble(base, refiner, _digest)
        self.tokenizer_files = {name: base.tokenizer_files(name) for name in ("tokenizer", "tokenizer_2")}
        self.parts = build_parts(
            sources=self.assembly.digests,
            target=target.name,
            recipe=recipe,
            configuration=[
                self.size,
                {name: component.configuration for name, component in self.assembly.components.items()},
                {kind: c.scheduler_config for kind, c in self.assembly.checkpoints.items()},
                {name: {f: c.decode() for f, c in files.items()} for name, files in self.tokenizer_files.items()},
            ],
            libraries=target.libraries,
        )

    @property
    def keys(self) -> dict[str, str]:
        """Component → key. Those that need the reference depend on every weight: its run goes through all."""
        return {
            name: component_key(
                self.parts,
                self.assembly.digests if self._needs_reference(component) else [component.source],
                component=name,
            )
            for name, component in self.assembly.components.items()
        }

    @property
    def bytes_needed(self) -> int:
        """An upper estimate of the finished engine, and of the largest stand-in where there are any."""
        sizes = [
            engine_bytes(component.weights, self.recipe, component.spec.role)
            for component in self.assembly.components.values()
        ]
        return sum(sizes) + (0 if self.target.runs_here else max(sizes))

    @cached_property
    def tokenizers(self) -> dict[str, Tokenizer]:
        """By text encoder."""
        return {
            encoder: Tokenizer(self.tokenizer_files[tokenizer_of(encoder)])
            for names in self.assembly.text_encoders.values()
            for encoder in names
        }

    @cached_property
    def reference(self) -> Reference:
        """The unquantized run; made when the first component needs it."""
        manifest = self._manifest({name: skeleton(c) for name, c in self.assembly.components.items()}, {})
        return run_reference(manifest, self.tokenizers, self.assembly, self.recipe, self.size, self._stage("reference"))

    def make(self, space: Workspace) -> Manifest:
        """Every component into the workspace, and the manifest that describes them."""
        finished: dict[str, Finished] = {}
        with track(self.progress, "lower", total=len(self.assembly.components), unit="component") as advance:
            for name, component in self.assembly.components.items():
                finished[name] = space.component(name, partial(self._lower, space.aside, component))
                advance(detail=name)
        tokenizers = {
            name: tuple(space.write(f"{name}/{file}", content) for file, content in sorted(files.items()))
            for name, files in self.tokenizer_files.items()
        }
        manifest = self._manifest(
            {name: self._entry(self.assembly.components[name], done) for name, done in finished.items()}, tokenizers
        )
        return self._gate(space.folder, manifest) if self.target.runs_here else manifest

    def _needs_reference(self, component: Component) -> bool:
        return not self.target.runs_here or self.recipe.needs_calibration(component.spec.role)

    def _lower(self, aside: Path, component: Component, folder: Path) -> Mapping[str, Any]:
        import torch

        from .graph.master import export_master
        from .reference.stand_in import check_stand_in

        calibration = None
        if self.recipe.needs_calibration(component.spec.role):
            calibration = self.reference.calibration[component.name]
        dtype = getattr(torch, self.target.dtype)
        master = export_master(component.name, component.module, component.spec, dtype=dtype)
        with TemporaryDirectory(dir=aside) as beside:
            made = self.target.lower(
                component.name, component.spec, master, component.weights, self.recipe, calibration, folder,
                Path(beside),
            )  # fmt: skip
            facts: dict[str, Any] = {"activation": dict(made.activation.terms)}
            if made.stand_in is not None:
                facts["quality"] = check_stand_in(made.stand_in, component, self.recipe, self.reference)
        return facts

    def _entry(self, component: Component, done: Finished) -> ComponentEntry:
        return ComponentEntry(
            spec=component.spec,
            runner=self.target.runner,
            files=done.files,
            weight_bytes=sum(file.size for file in done.files),
            activation=ActivationModel(terms=done.facts["activation"]),
            quality=done.facts.get("quality", {}),
            quality_of="stand_in" if "quality" in done.facts else "engine",
        )

    def _manifest(
        self, components: Mapping[str, ComponentEntry], tokenizers: Mapping[str, tuple[FileEntry, ...]]
    ) -> Manifest:
        base = self.assembly.checkpoints["base"]
        return Manifest(
            target=self.target.name,
            recipe=self.recipe.name,
            models=Models(
                denoisers={
                    kind: replace(checkpoint.architecture, text_encoders=self.assembly.text_encoders[kind])
                    for kind, checkpoint in self.assembly.checkpoints.items()
                },
                text_encoders={
                    name: self.assembly.checkpoints[kind].text_encoder_architecture(name.rsplit("/", 1)[-1])
                    for kind, names in self.assembly.text_encoders.items()
                    for name in names
                },
                vae=base.vae_architecture,
            ),
            components=components,
            tokenizers=tokenizers,
            tools={name.removeprefix("library "): v for name, v in self.parts.items() if name.startswith("library ")},
            build_key=self.parts,
            created_by=f"pocketxl {metadata.version('pocketxl')}",
        )

    def _gate(self, folder: Path, manifest: Manifest) -> Manifest:
        """Hold every component and a short run to the reference; the manifest with the figures in it."""
        from .reference.gate import check_components, check_pictures

        runners = open_runners(folder, manifest)
        figures = check_components(runners, self.assembly, self.recipe, self.reference, self.progress)
        pipe = Pipeline(manifest, runners, self.tokenizers, memory_budget=LEAST)
        pictures = short_run(pipe, self.recipe.calibration, self.size, self._stage("check"))
        quality = check_pictures(self.recipe, self.reference.pictures, pictures)
        components = {name: replace(entry, quality=figures[name]) for name, entry in manifest.components.items()}
        return replace(manifest, components=components, quality=quality)

    def _stage(self, name: str) -> Progress:
        """The pipeline's own progress under the name of a build's stage."""

        def forward(event: Any) -> None:
            self.progress(replace(event, stage=f"{name}: {event.stage}"))

        return forward


def _digest(checkpoint: Checkpoint, part: str) -> str:
    weights = checkpoint.weights(part)
    compute: Callable[[], str] = weights.digest
    return cached_digest(weights.files(), f"{checkpoint.kind}.{part}", compute)
