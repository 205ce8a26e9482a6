"""Checkpoint → engine folder: the order of the steps.

    report = build("sd_xl_base_1.0.safetensors", Path("my-engine"), refiner="sd_xl_refiner_1.0.safetensors")

open → key → trace and lower each component → gate → publish. A build that was interrupted goes on where it stopped; one
whose result is there already ends when all of its files are hashed, and mends those that are damaged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from types import MappingProxyType

import numpy as np

from ..engine.errors import QualityError, RequestError
from ..engine.folder.files import FileEntry
from ..engine.folder.manifest import ActivationModel, ComponentEntry, Manifest, Streaming
from ..engine.folder.openings import Openings, files_of
from ..engine.folder.samples import SAMPLE_FILE, encode_sample
from ..engine.folder.schema import decode
from ..engine.folder.variants import loaded_bytes
from ..engine.memory.plan import LEAST
from ..engine.pipeline import Pipeline
from ..engine.progress import Progress, Silent, track
from ..engine.request.limits import integer
from ..engine.runners import open_runners
from .checkpoint.tiny import open_tiny_decoder
from .clip_skip import skipping
from .components import Component
from .job import (
    Job,
    asked_noise,
    bytes_needed,
    expected_stages,
    models_of,
    open_as,
    possible_recipes,
    prepare,
    rehearse,
    tokenizers_of,
)
from .job_keys import component_keys, reference_key
from .lowering import Lowering
from .mend import intact_components, mended
from .progress import whole
from .publish.existing import Existing, find_engine
from .publish.keys import digest_of
from .publish.storage import check_writable
from .publish.workspace import Finished, Workspace, workspace
from .quantize.recipes import find_recipe
from .reference.colours import latent_colours
from .reference.run import Reference, sample_of
from .reference.store import ReferenceStore
from .reference_run import reference_of
from .target import FACTS, FOUND
from .targets import sized_target
from .targets.check import check
from .threads import torch_threads

_FORCED = "everything was to be built again"


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """What a build did. `reasons`: why it could not leave what was there; empty if it could (`cached`).

    `taken`: the components that are those of the engine which it replaced, since nothing that they depend on has
    changed. `notes`: what of the inputs does not reach the engine.
    """

    folder: Path
    manifest: Manifest
    cached: bool
    reasons: tuple[str, ...]
    taken: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def build(
    source: str | Path,
    destination: Path,
    *,
    refiner: str | Path | None = None,
    target: str = "cpu",
    largest: int | None = None,
    recipe: str | None = None,
    config: Path | None = None,
    refiner_config: Path | None = None,
    prediction_type: str | None = None,
    zero_snr: bool | None = None,
    vae: Path | None = None,
    clip_skip: int = 0,
    tiny_decoder: Path | None = None,
    loras: Mapping[str | Path, float] = MappingProxyType({}),
    calibration_size: int | None = None,
    reference: Path | None = None,
    keep: Sequence[str] = (),
    strict: bool = False,
    force: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> BuildReport:
    """Build an engine folder at `destination` from an SDXL base checkpoint, and a refiner's if there is one.

    `source`, `refiner`: diffusers folder, single-file `.safetensors` in the original layout, or hub id. `recipe`: None
    for the target's own default. `largest`: pixels of the longest side that the engine takes, for targets that have a
    limit (None: 1536). `config`, `refiner_config`: diffusers folders that describe single files which are not
    public SDXL. `prediction_type` (`epsilon` or `v_prediction`) and `zero_snr` count more than what the base checkpoint
    says of its noise; a refiner's is its own. `vae`: a file or diffusers folder, in place of the checkpoints' own.
    `clip_skip`: layers before the penultimate at which text encoders are read, as diffusers counts them.
    `tiny_decoder`: TAESD's file, or an `AutoencoderTiny` folder, for `decoder="tiny"`.
    `loras`: files that are merged into the weights, each with how much it counts.
    `calibration_size`: pixels (None: the model's native size, 512 at most). `reference`: a folder that keeps the
    unquantized run, for builds of the same checkpoints in other recipes and for other targets. `keep`: layers that stay
    in floats, by name or pattern (see `export.keep`). `strict`: no layer gets more bits than the recipe's own format,
    and a missed goal is an error. `force`: build everything again, whatever is there. `threads`: for the reference run
    and the gate (None: the libraries' own choice). Raises the errors of `engine.errors`; the destination then is as it
    was, and what is finished is kept beside it for the next build.
    """
    progress = progress or Silent()
    if threads is not None:
        integer("threads", threads)
    if reference is not None:
        check_writable(reference, "reference")
    if refiner_config is not None and refiner is None:
        raise RequestError("refiner_config describes a refiner, and there is none; give the refiner too")
    chosen = sized_target(target, largest)
    asked = find_recipe(recipe or chosen.default_recipe)
    if strict:
        asked = replace(asked, ladder={})
    check(chosen, asked)
    machine = chosen.machine()
    job = prepare(
        skipping(open_as(source, "base", config, asked_noise(prediction_type, zero_snr), vae), clip_skip),
        None if refiner is None else skipping(open_as(refiner, "refiner", refiner_config, vae=vae), clip_skip),
        target=chosen,
        machine=machine,
        recipe=asked,
        keep=keep,
        calibration_size=calibration_size,
        tiny_decoder=None if tiny_decoder is None else open_tiny_decoder(tiny_decoder),
        loras=loras,
        progress=progress,
    )
    return build_job(job, destination, reference=reference, force=force, threads=threads, progress=progress)


def build_job(
    job: Job, destination: Path, *, reference: Path | None = None, force: bool, threads: int | None, progress: Progress
) -> BuildReport:
    """Make what a job says at `destination`, or find that it is there; raises as `build` does."""
    found = Existing(reasons=(_FORCED,)) if force else find_engine(destination, job.parts, progress)
    if found.manifest is not None and not found.damaged:
        return BuildReport(folder=destination, manifest=found.manifest, cached=True, reasons=(), notes=job.notes)
    if job.assembly.checkpoints:  # else pictures are not made with it
        rehearse(job)
    keys = component_keys(job)
    intact, needed = intact_components(found, keys), bytes_needed(job)
    with (
        torch_threads(threads),
        workspace(destination, keys=keys, bytes_needed=needed, intact=intact, afresh=force) as space,
        whole(progress, expected_stages(job)) as progress,
    ):
        kept = space.reference if reference is None else reference / reference_key(job)
        manifest = _make(job, space, kept, found.manifest, threads, progress)
        with track(progress, "publish", total=1, unit="folder") as advance:
            space.publish(manifest)
            advance()
    return BuildReport(
        folder=destination, manifest=manifest, cached=False, reasons=found.reasons, taken=tuple(space.taken),
        notes=job.notes,
    )  # fmt: skip


_ATTEMPTS = 3
"""Of an engine: the pictures of the first may be too far off, and components then get smaller goals."""


def _make(
    job: Job, space: Workspace, kept: Path, damaged: Manifest | None, threads: int | None, progress: Progress
) -> Manifest:
    """Every component into the workspace, and the manifest that describes them, with the gate's figures.

    `kept`: where the reference run is, as far as it has come. `damaged`: of the engine that is mended; it holds again
    if the same bytes came about, and the gate is spared.
    """

    @cache
    def reference() -> Reference:  # made when the first component or the gate needs it
        return reference_of(job, kept, progress)

    lowering, components = Lowering(job, reference, threads, space.smoothing), job.assembly.components
    tokenizers = {
        name: tuple(space.write(f"{name}/{file}", content) for file, content in sorted(files.items()))
        for name, files in ({} if job.assembly.companion else job.tokenizer_files).items()
    }
    for last in (*[False] * (_ATTEMPTS - 1), True):
        finished = _lowered(job, space, lowering, progress)
        made = _manifest(job, finished, tokenizers)
        if damaged is not None and mended(damaged, made, space):
            return damaged
        manifest = _with_samples(made, job, space, lowering)
        if job.assembly.companion is not None:
            break  # it makes no pictures alone, and has no decoder
        manifest = replace(manifest, models=replace(manifest.models, latent_colours=latent_colours(job.assembly)))
        if not job.target.runs_here:
            break
        pictures = reference().pictures
        reference.cache_clear()  # gigabytes, which are read again if pictures are too far off
        try:
            return _gate(job, space, manifest, pictures, threads, progress)
        except QualityError:  # of the pictures: every component has reached its own goal
            behind = [name for name, done in finished.items() if lowering.tighten(components[name], done.facts)]
            if last or not behind:
                raise
            for name in behind:
                space.forget(name)
    return manifest


def _lowered(job: Job, space: Workspace, lowering: Lowering, progress: Progress) -> dict[str, Finished]:
    """Every component, those that are there already among them."""
    components = job.assembly.components
    left = sum(component.weights.bytes for name, component in components.items() if name not in space.finished)
    finished = {}
    with track(progress, "lower", total=left, unit="B") as advance:
        for name, component in components.items():
            advance(0, detail=name)
            lower = partial(lowering.lower, component, partial(advance, detail=name), aside=space.aside)
            finished[name] = space.component(name, lower)
    return finished


def _manifest(job: Job, finished: Mapping[str, Finished], tokenizers: Mapping[str, tuple[FileEntry, ...]]) -> Manifest:
    return Manifest(
        target=job.target.name,
        recipe=job.recipe.name,
        models=models_of(job.assembly),
        components={name: _entry(job, job.assembly.components[name], done) for name, done in finished.items()},
        tokenizers=tokenizers,
        tools={name.removeprefix("library "): v for name, v in job.parts.items() if name.startswith("library ")},
        build_key=job.parts,
        created_by=f"pocketxl {metadata.version('pocketxl')}",
        companion=job.assembly.companion,
    )


def _entry(job: Job, component: Component, done: Finished) -> ComponentEntry:
    facts = {name: done.facts[name] for name in (*FACTS, *FOUND)}
    facts["activation"] = decode(ActivationModel, facts["activation"], f"{component.name}: activation")
    if facts["streaming"] is not None:
        facts["streaming"] = decode(Streaming, facts["streaming"], f"{component.name}: streaming")
    if facts["openings"] is not None:
        facts["openings"] = decode(Openings, facts["openings"], f"{component.name}: openings")
    target = job.target.of(component.spec.role)
    facts["runner"] = facts["runner"] or target.runner
    return ComponentEntry(
        spec=component.spec,
        files=done.files,
        key=done.key,
        weight_bytes=loaded_bytes(done.files, facts["architectures"], files_of(facts["openings"])),
        **facts,
        quality_of="engine" if target.runs_here else "stand_in",
    )


def _with_samples(manifest: Manifest, job: Job, space: Workspace, lowering: Lowering) -> Manifest:
    """The manifest of an engine that carries a sample of each component, and the recipe's limits for them."""
    samples = {name: lowering.samples(component) for name, component in job.assembly.components.items()}
    return replace(
        manifest,
        components={
            name: replace(
                entry,
                sample=space.write(f"{name}/{SAMPLE_FILE}", encode_sample(*sample_of(samples, name))),
                max_relative_error=job.recipe.max_relative_error[entry.spec.role],
            )
            for name, entry in manifest.components.items()
        },
    )


def _gate(
    job: Job, space: Workspace, manifest: Manifest, expected: np.ndarray, threads: int | None, progress: Progress
) -> Manifest:
    """Hold a short run to the reference's pictures; the manifest with its figures in it."""
    from .reference.gate import check_pictures, short_run

    others, settings = possible_recipes(job), job.recipe.calibration
    runners = open_runners(space.folder, manifest, threads=threads)
    store = ReferenceStore(space.gate, digest_of([job.parts, manifest.files]))
    with Pipeline(manifest.models, runners, tokenizers_of(job), memory_budget=LEAST) as pipe:
        pictures = short_run(pipe, settings, job.size, store, progress)
        measured_on = next(iter(runners.values())).device.name
    quality = check_pictures(job.recipe, others, expected, pictures)
    return replace(manifest, quality=quality, measured_on=measured_on)
