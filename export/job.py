"""What one build is made from: checked options, opened models, and the keys that follow from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

from ..engine.architecture import NO_MODELS, Models
from ..engine.errors import IncompatibleError, RequestError
from ..engine.folder.checks import model_faults
from ..engine.preparation import Prepared
from ..engine.progress import Progress, track
from ..engine.request.resolve import resolve
from ..engine.sampling.levels.settings import PredictionType
from ..engine.specs import Role
from ..engine.text.tokenizer import Tokenizer, tokenizer_of
from ..engine.tiny import TINY_DECODER
from .checkpoint.families import FAMILIES
from .checkpoint.marks import Noise
from .checkpoint.open import Checkpoint, open_checkpoint
from .checkpoint.tiny import TinyDecoderSource
from .components import Assembly, Component, assemble
from .keep import keeping
from .loras import merged, read_loras
from .part_digests import digest_part, unread_bytes
from .progress import Share, expected
from .publish.keys import build_parts, digest_of
from .quantize.recipes import RECIPES, Recipe
from .quantize.size import engine_bytes
from .reference.painted import painted_into
from .target import Target
from .targets.check import check_heads, fitted, recipes_for

CALIBRATION_PIXELS = 512
"""Width and height of the reference run, unless the model is smaller: a full-size one takes 10 s a call at 512² on two
cores and four times that at 1024², and ranges of activations behind normalisation layers hardly change with size."""

MOST_CALIBRATION_PIXELS = 2048
KEPT = "kept layers"
"""The part of a job's that says which layers stay in floats."""
MACHINE = "machine's"
"""How parts begin that the machine decides which an engine is built on."""
TINY = "tiny decoder"
"""What no other component, and no reference run, depends on."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One build's inputs. `size`: pixels of the reference run; `parts`: all that the result depends on."""

    assembly: Assembly
    target: Target
    recipe: Recipe
    recipes: Mapping[str, Recipe]
    """What it comes to for each component, with the layers that are kept."""
    size: int
    tokenizer_files: Mapping[str, Mapping[str, bytes]]
    parts: Mapping[str, str]
    notes: tuple[str, ...] = ()
    """What of the inputs does not reach the engine, a sentence each."""


def prepare(
    base: Checkpoint,
    refiner: Checkpoint | None,
    *,
    target: Target,
    machine: Mapping[str, str] = MappingProxyType({}),
    recipe: Recipe,
    keep: Sequence[str] = (),
    calibration_size: int | None,
    tiny_decoder: TinyDecoderSource | None = None,
    loras: Mapping[str | Path, float] = MappingProxyType({}),
    progress: Progress,
) -> Job:
    """Digest the weights and list the components. `machine`: as the target has told it.

    Raises `RequestError` for a calibration size that no build can have, and for layers to keep that there are not, and
    what `read_loras` does.
    """
    unread = sum(unread_bytes(checkpoint) for checkpoint in (base, refiner) if checkpoint is not None)
    with track(progress, "read", total=unread, unit="B") as advance:
        assembly = assemble(base, refiner, partial(digest_part, advance), tiny_decoder)
    notes: tuple[str, ...] = ()
    if loras:
        read = read_loras(loras, models_of(assembly))
        assembly = merged(assembly, read)
        notes = tuple(note for lora, _ in read for note in lora.notes())
    files = {name: base.tokenizer_files(name) for name in base.tokenizers}
    size = calibration_size_of(base, calibration_size)
    job = job_of(assembly, files, size, target=target, machine=machine, recipe=recipe, keep=keep)
    return replace(job, notes=notes)


def job_of(
    assembly: Assembly,
    tokenizer_files: Mapping[str, Mapping[str, bytes]],
    size: int,
    *,
    target: Target,
    machine: Mapping[str, str],
    recipe: Recipe,
    keep: Sequence[str],
) -> Job:
    """The job of building an assembly's components; `size`: pixels of the reference run."""
    suited = partial(_for_component, recipe, target)
    recipes = {
        name: _for_component(own, target, assembly.components[name])
        for name, own in keeping(recipe, keep, assembly.components, suited).items()
    }
    parts = build_parts(
        sources=assembly.digests,
        target=target.described,
        recipe=recipe,
        configuration=[
            size,
            {n: c.configuration for n, c in {**assembly.beside, **assembly.components}.items() if n != TINY_DECODER},
            {kind: c.scheduler_config for kind, c in assembly.checkpoints.items()},
            {name: {f: c.decode() for f, c in files.items()} for name, files in tokenizer_files.items()},
        ],
        libraries=target.libraries,
    )
    if (tiny := assembly.tiny_decoder) is not None:
        parts[TINY] = digest_of([tiny.architecture, tiny.weights.digest()])
    parts |= {f"{MACHINE} {name}": value for name, value in machine.items()}
    plain = {name: suited(one) for name, one in assembly.components.items()}
    if kept := {name: own.rules for name, own in recipes.items() if own != plain[name]}:
        parts[KEPT] = f"in {', '.join(kept)} ({digest_of(kept)})"
    return Job(
        assembly=assembly,
        target=target,
        recipe=recipe,
        recipes=recipes,
        size=size,
        tokenizer_files=tokenizer_files,
        parts=parts,
    )


def open_as(
    source: str | Path, kind: str, config: Path | None, noise: Noise | None = None, vae: Path | None = None
) -> Checkpoint:
    """The checkpoint at `source`, which must be a `kind` (`base` or `refiner`); else `IncompatibleError`."""
    checkpoint = open_checkpoint(source, config=config, noise=noise, vae=vae)
    found = FAMILIES[checkpoint.kind].denoiser
    if found != kind:
        other = "give it as --refiner, beside a base" if kind == "base" else "give it as the source, not as --refiner"
        raise IncompatibleError(f"{source} is a {found}, not a {kind}; {other}")
    return checkpoint


def rehearse(job: Job) -> None:
    """Prepare the reference run's calls without any weight.

    What only the checkpoint's settings decide is told now, not after hours: `IncompatibleError` for noise levels that
    the run cannot be laid on and heads that the target has no kernels for, `IntegrityError` for tokenizer files that do
    not fit together.
    """
    for kind, checkpoint in job.assembly.checkpoints.items():
        check_heads(job.target, kind, checkpoint.unet_architecture)
    models, tokenizers, steps = models_of(job.assembly), tokenizers_of(job), job.recipe.calibration.steps
    options = {"num_inference_steps": steps, "width": job.size, "height": job.size}
    options |= painted_into(models, 0, job.size)
    try:
        Prepared.of(resolve({"prompt": "", **options}, models), models, tokenizers)
    except RequestError as error:
        sources = " and ".join(str(checkpoint.source) for checkpoint in job.assembly.checkpoints.values())
        raise IncompatibleError(
            f"{sources}: the pictures that a build is measured by cannot be made: {error}"
        ) from error


def asked_noise(prediction_type: str | None, zero_snr: bool | None) -> Noise:
    """What the caller says of the base's noise; `RequestError` for a prediction that no model makes."""
    if prediction_type is None:
        return Noise(zero_snr=zero_snr)
    if prediction_type not in list(PredictionType):
        raise RequestError(f"prediction_type is {prediction_type!r}; it must be {' or '.join(PredictionType)}")
    return Noise(prediction_type=PredictionType(prediction_type), zero_snr=zero_snr)


def possible_recipes(job: Job) -> list[Recipe]:
    """Those that the target can do."""
    return [fitted(RECIPES[name], job.target) for name in recipes_for(job.target)]


def bytes_needed(job: Job) -> int:
    """An upper estimate of the finished engine, and of the largest stand-in where there are any."""
    sizes = []
    for name, one in job.assembly.components.items():
        recipes = job.target.of(one.spec.role).files(job.recipes[name])
        sizes.append([engine_bytes(one.weights, recipe, one.spec.role) for recipe in recipes])
    return sum(map(sum, sizes)) + (0 if job.target.runs_here else max(map(max, sizes)))


def expected_stages(job: Job) -> dict[str, Share]:
    """What the build is about to take, stage by stage."""
    components, settings = job.assembly.components.values(), job.recipe.calibration
    unets = [c.weights.bytes for c in components if c.spec.role is Role.UNET]
    return expected(
        weights=sum(c.weights.bytes for c in components),
        unet=sum(unets) // max(1, len(unets)),
        steps=settings.prompts * settings.steps + 2 * settings.watched,
        pixels=job.size**2,
        gated=job.target.runs_here and job.assembly.companion is None,
    )


def models_of(assembly: Assembly) -> Models:
    """What the models are, apart from what will lie on disk; `IncompatibleError` for some that no engine may have."""
    if not assembly.checkpoints:
        return NO_MODELS
    models = Models(
        family=FAMILIES[assembly.checkpoints["base"].kind].models,
        denoisers={
            kind: replace(checkpoint.architecture, text_encoders=assembly.text_encoders[kind])
            for kind, checkpoint in assembly.checkpoints.items()
        },
        text_encoders={
            name: assembly.checkpoints[kind].text_encoder_architecture(name.rsplit("/", 1)[-1])
            for kind, names in assembly.text_encoders.items()
            for name in names
        },
        vae=assembly.checkpoints["base"].vae_architecture,
        encodes="vae_encoder" in assembly.components,
        tiny_decoder=None if assembly.tiny_decoder is None else assembly.tiny_decoder.architecture,
    )
    if fault := next(model_faults(models), None):
        sources = " and ".join(str(checkpoint.source) for checkpoint in assembly.checkpoints.values())
        raise IncompatibleError(f"{sources}: no engine can have such models: {fault}")
    return models


def tokenizers_of(job: Job) -> dict[str, Tokenizer]:
    """Text encoder → its tokenizer."""
    return {
        encoder: Tokenizer(job.tokenizer_files[tokenizer_of(encoder)])
        for names in job.assembly.text_encoders.values()
        for encoder in names
    }


def calibration_size_of(base: Checkpoint, asked: int | None) -> int:
    """Pixels of the reference run's pictures; a checkpoint's native size is one that it can have."""
    step = max(8, base.vae_architecture.downscale)
    if asked is None:
        return min(base.native_size, CALIBRATION_PIXELS)
    if not step <= asked <= MOST_CALIBRATION_PIXELS or asked % step:
        raise RequestError(
            f"calibration size is {asked}; it must be a multiple of {step} from {step} to {MOST_CALIBRATION_PIXELS}"
        )
    return asked


def _for_component(recipe: Recipe, target: Target, component: Component) -> Recipe:
    own = target.of(component.spec.role)
    return own.suited(fitted(recipe, own), component.configuration)
