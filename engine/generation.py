"""One call on its way from request to pictures: the steps, each loading and releasing what the plan says.

Prompts → tokens and noise levels (`prepare`) → embeddings (`encode`) → latents, step by step (`steps`) → pictures
(`pictures`). What a later step does not need is dropped before it: a model's embeddings when its keys and values are
there, those when its part of the loop has ended.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import numpy as np

from .architecture import Models
from .beginning import Beginning, from_noise, from_pictures
from .conditioning import Conditioning, condition, time_ids
from .enlarging import larger_latents, larger_pictures
from .errors import RequestError
from .guidance import guided_model
from .inpainting import Inpainting, paste_back
from .memory.plan import MemoryPlan
from .memory.residency import Residency
from .memory.workload import Workload
from .progress import Progress, track
from .pictures_in.input import PictureInput
from .request.hires import second_input
from .request.request import ResolvedRequest
from .runners.base import Runner
from .sampling.begin import from_step, from_strength
from .sampling.denoise import Step, denoise
from .sampling.noise import BatchNoise
from .sampling.samplers.base import Array, Noise, Schedule
from .sampling.schedule import evaluation_timesteps, make_schedule, split
from .sampling.torch_noise import TorchNoise
from .text.cache import EncodedChunks
from .text.encode import PromptTokens, Sides, encode, tokenize
from .text.tokenizer import Tokenizer
from .vae import decode, to_pil
from .vae_encode import LatentDistribution, encode_picture, joined

Embeddings = Mapping[str, Sequence[Sides]]
"""Model kind → each prompt's embeddings, and its negative's (None without guidance)."""
Steps = Generator[Step, Array | None, Array]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A checked request with its prompts tokenized and its steps laid; mappings are by model kind, in running order."""

    request: ResolvedRequest
    tokens: Mapping[str, Sequence[PromptTokens]]
    parts: Mapping[str, Schedule]
    """Each model's part of the noise levels; one that takes no step is not there."""
    init_noise_sigma: float
    first: Self | None = None
    """The pass before this one, whose pictures are enlarged for it."""

    @classmethod
    def of(cls, request: ResolvedRequest, models: Models, tokenizers: Mapping[str, Tokenizer]) -> Self:
        """Prepare a request. Raises `RequestError` for what only the checkpoint decides, such as too many steps."""
        if request.hires is not None:
            first = cls.of(_first_pass(request), models, tokenizers)
            return replace(cls.of(_second_pass(request), models, tokenizers), first=first)
        parts = _schedules(request, models)
        start = next(iter(parts.values())).init_noise_sigma
        parts = {kind: part for kind, part in parts.items() if part.evaluations}
        tokens = {
            kind: [
                tokenize(tokenizers, p, model, guidance=model.guided(request.guidance_scale)) for p in request.prompts
            ]
            for kind, model in ((kind, models.denoisers[kind]) for kind in parts)
        }
        return cls(request=request, tokens=tokens, parts=parts, init_noise_sigma=start)

    @property
    def workload(self) -> Workload:
        """What its memory depends on."""
        longest = tuple(max(prompt.tokens for prompt in column) for column in zip(*self.tokens.values(), strict=True))
        guidance = any(prompt.guided for column in self.tokens.values() for prompt in column)
        evaluations = {kind: len(part.evaluations) for kind, part in self.parts.items()}
        if self.first is not None:
            before = self.first.workload.evaluations
            evaluations = {kind: max(evaluations.get(kind, 0), before.get(kind, 0)) for kind in {**before, **evaluations}}
        return Workload.of(self.request, longest, evaluations, guidance=guidance)


@dataclass(frozen=True, kw_only=True)
class Generation:
    """One prepared call and what it runs on."""

    models: Models
    runners: Mapping[str, Runner]
    tokenizers: Mapping[str, Tokenizer]
    residency: Residency
    plan: MemoryPlan
    prepared: Prepared
    progress: Progress
    cache: EncodedChunks | None = None

    def encode(self) -> dict[str, list[Sides]]:
        """Every prompt's embeddings for every model that takes part, so that each encoder is loaded once."""
        tokens = self.prepared.tokens
        prompts = [prompt for column in tokens.values() for prompt in column]
        encoders = {name for prompt in prompts for name in prompt.text_encoders}
        with track(self.progress, "encode", total=len(encoders), unit="encoder") as advance:

            def use(runner: Runner) -> AbstractContextManager[None]:
                return self.residency.phase(self.plan, runner.name, self.progress)

            sides = iter(encode(self.runners, self.tokenizers, prompts, use=use, cache=self.cache, advance=advance))
        return {kind: [next(sides) for _ in column] for kind, column in tokens.items()}

    def steps(self, embeddings: Embeddings) -> Steps:
        """The loop: from each picture's own noise through the base's part and the refiner's.

        Yields after every evaluation of a model, counted over both; takes latents to go on with by `send`, and returns
        the last ones. Close it to stop early.
        """
        _check_embeddings(embeddings, self.prepared.tokens)
        waiting = dict(embeddings)
        del embeddings
        noise = _noise(self.prepared.request)
        first = self.prepared.first
        if first is None:
            return (yield from self._pass(waiting, noise, 0))
        smaller = replace(self, prepared=first)
        latents = yield from smaller._pass({kind: waiting[kind] for kind in first.parts}, noise, 0)
        done = sum(len(part.evaluations) for part in first.parts.values())
        request = self.prepared.request
        larger = replace(request, pictures=self._enlarged(request, latents))
        return (yield from replace(self, prepared=replace(self.prepared, request=larger))._pass(waiting, noise, done))

    def _pass(self, waiting: dict[str, Sequence[Sides]], noise: Noise, before: int) -> Steps:
        """All parts, from the beginning on; embeddings are dropped from `waiting`. `before` evaluations were made."""
        parts = self.prepared.parts
        beginning = self._beginning(noise)
        latents, inpainting = beginning.latents, beginning.inpainting
        del beginning
        total = sum(len(part.evaluations) for part in parts.values())
        with track(self.progress, "denoise", total=total, unit="step") as advance:
            for kind, part in parts.items():
                # Not in a variable: it would outlive the part.
                latents = yield from self._part(
                    kind, part, self._condition(kind, waiting.pop(kind), part), latents, noise, before, advance, inpainting
                )
                before += len(part.evaluations)
        return latents

    def pictures(self, latents: Array | None) -> Any:
        """Latents → what the request asks for: PIL pictures, arrays (n, H, W, 3) in [0, 1], or the latents.

        Without latents there are no pictures, in the same form.
        """
        request = self.prepared.request
        kind = request.output_type
        if latents is None:
            none: dict[str, Any] = {
                "pil": [],
                "np": np.empty((0, request.height, request.width, 3), np.float32),
                "latent": np.empty((0, *self.models.vae.latent_shape(request.height, request.width)), np.float32),
            }
            return none[kind]
        if kind == "latent":
            return latents
        given, finish = request.pictures, None
        if given is not None and given.paste_back:
            finish = partial(paste_back, given, images=len(latents))
        return decoded(
            self.models, self.runners, self.residency, self.plan, latents, kind, self.progress, finish=finish
        )

    def _beginning(self, noise: Noise) -> Beginning:
        """What the first part starts from."""
        request, vae, sigma = self.prepared.request, self.models.vae, self.prepared.init_noise_sigma
        shape = vae.latent_shape(request.height, request.width)
        if request.pictures is None:
            return from_noise(request, noise, shape, sigma)
        return from_pictures(
            request,
            request.pictures,
            noise,
            next(iter(self.prepared.parts.values())),
            self._encoded,
            shape=shape,
            downscale=vae.downscale,
            init_noise_sigma=sigma,
            beside=any(self._told(kind) for kind in self.prepared.parts),
        )

    def _told(self, kind: str) -> bool:
        """Whether a model takes the mask and the masked picture beside the latents."""
        return self.models.denoisers[kind].unet.inpaints(self.models.vae.latent_channels)

    def _encoded(self, pictures: Sequence[np.ndarray]) -> LatentDistribution:
        """What the VAE makes of pictures, one after another."""
        runner = self.runners["vae_encoder"]
        with (
            self.residency.phase(self.plan, runner.name, self.progress),
            track(self.progress, "encode picture", total=len(pictures), unit="image") as advance,
        ):
            found = []
            for picture in pictures:
                found.append(encode_picture(runner, picture, self.models.vae.scaling_factor))
                advance()
        return joined(found)

    def _enlarged(self, request: ResolvedRequest, latents: Array) -> PictureInput:
        """What the second pass begins from."""
        given, (height, width) = request.pictures, (request.height, request.width)
        assert given is not None
        if given.latents is not None:
            _, *sides = self.models.vae.latent_shape(height, width)
            return replace(given, latents=larger_latents(latents, *sides))
        pictures = decoded(self.models, self.runners, self.residency, self.plan, latents, "np", self.progress)
        return replace(given, pictures=larger_pictures(pictures, height, width))

    def _condition(self, kind: str, prompts: Sequence[Sides], part: Schedule) -> list[tuple[Conditioning, ...]]:
        """What the U-Net is given for each prompt and its negative."""
        runner, rows = self.runners[f"{kind}/conditioner"], self.runners[f"{kind}/unet"].rows
        ids = time_ids(self.prepared.request, self.models.denoisers[kind].unet.size_ids)
        with self.residency.phase(self.plan, runner.name, self.progress):
            return [
                condition(
                    runner,
                    [(embeds, own) for embeds, own in zip(sides, ids, strict=True) if embeds is not None],
                    evaluation_timesteps(part),
                    rows=rows,
                    guidance_scale=self.prepared.request.guidance_scale,
                )
                for sides in prompts
            ]

    def _part(
        self,
        kind: str,
        part: Schedule,
        prompts: Sequence[tuple[Conditioning, ...]],
        latents: Array,
        noise: Noise,
        before: int,
        advance: Callable[[], None],
        inpainting: Inpainting | None,
    ) -> Steps:
        """One model's part of the loop; `before` evaluations were others'."""
        told = self._told(kind)
        runner, request = self.runners[f"{kind}/unet"], self.prepared.request
        with (
            self.residency.phase(self.plan, runner.name, self.progress),
            guided_model(
                runner, prompts, request, beside=inpainting.beside if inpainting is not None and told else None
            ) as model,
        ):
            steps = denoise(model, latents, part, noise, eta=request.eta)
            step = resume(steps)
            while isinstance(step, Step):
                advance()
                kept = None
                if inpainting is not None and not told:
                    kept = inpainting.kept(step.latents, part, part.begin + step.index)
                    step = replace(step, latents=kept)
                replacement = yield replace(step, index=before + step.index)
                step = resume(steps, kept if replacement is None else replacement)
            return step


def decoded(
    models: Models,
    runners: Mapping[str, Runner],
    residency: Residency,
    plan: MemoryPlan,
    latents: Array,
    output_type: str,
    progress: Progress,
    *,
    finish: Callable[[int, Array], Array] | None = None,
) -> Any:
    """Latents (n, C, h, w) → PIL pictures (`pil`) or arrays (n, H, W, 3) in [0, 1] (`np`), each as it is done.

    `finish`: what is still done to each, from its number and its array.
    """
    vae, (height, width) = runners["vae_decoder"], latents.shape[2:]
    side = models.vae.downscale
    with (
        residency.phase(plan, vae.name, progress),
        track(progress, "decode", total=len(latents), unit="image") as advance,
    ):
        shape = (len(latents), height * side, width * side, 3)
        pictures: Any = [] if output_type == "pil" else np.empty(shape, np.float32)
        for index, picture in enumerate(decode(vae, latents, models.vae.scaling_factor)):
            if finish is not None:
                picture = finish(index, picture)
            if output_type == "pil":
                pictures.append(to_pil(picture))
            else:
                pictures[index] = picture
            advance()
    return pictures


def _noise(request: ResolvedRequest) -> Noise:
    """What the latents start from, and what samplers add on their way."""
    if request.generators is not None:
        return TorchNoise(request.generators, request.images)
    return BatchNoise([seed for seed in request.seeds if seed is not None])


def resume(steps: Steps, replacement: Array | None = None) -> Step | Array:
    """Go on to the next step, from other latents if there is a replacement; the last latents once there is none."""
    try:
        return steps.send(replacement)
    except StopIteration as end:
        return np.asarray(end.value)


def _check_embeddings(embeddings: Embeddings, tokens: Mapping[str, Sequence[PromptTokens]]) -> None:
    """Raise `RequestError` for embeddings that were made for other models, prompts or guidance."""
    for kind, prompts in tokens.items():
        given, guided = embeddings.get(kind, ()), any(prompt.guided for prompt in prompts)
        if len(given) != len(prompts) or any((side is not None) != guided for _, side in given):
            raise RequestError(
                f"the embeddings do not fit the request: its {kind} needs those of {len(prompts)} prompts, "
                f"{'each with its negative' if guided else 'without negatives'}; encode this request"
            )


def _schedules(request: ResolvedRequest, models: Models) -> dict[str, Schedule]:
    """Each model's part of the noise levels."""
    whole = {
        kind: make_schedule(
            models.denoisers[kind].scheduler,
            sampler=request.sampler,
            schedule=request.schedule,
            num_inference_steps=request.num_inference_steps,
            timesteps=request.timesteps,
            sigmas=request.sigmas,
        )
        for kind in request.kinds
    }
    whole = {kind: _begun(schedule, request.pictures) for kind, schedule in whole.items()}
    if request.denoising_end is None:
        return _some(whole)
    # The base walks the first part, the refiner the second one; without a refiner the noise is left in.
    second = {kind: kind == "refiner" and "base" in whole for kind in whole}
    return _some({kind: split(whole[kind], request.denoising_end)[second[kind]] for kind in whole})


def _begun(schedule: Schedule, given: PictureInput | None) -> Schedule:
    """The part of a schedule that is walked from a picture."""
    if given is None:
        return schedule
    if given.denoising_start is not None:
        return split(schedule, given.denoising_start)[1]
    return from_strength(schedule, given.strength) if given.first_step is None else from_step(schedule, given.first_step)


def _some(parts: dict[str, Schedule]) -> dict[str, Schedule]:
    """The same, which must have a step to make."""
    if not any(part.evaluations for part in parts.values()):
        raise RequestError(
            "denoising_start leaves no step before denoising_end or the last one; move them apart, or take more steps"
        )
    return parts


def _first_pass(request: ResolvedRequest) -> ResolvedRequest:
    """The smaller pass, by the base to its end."""
    return replace(request, hires=None, kinds=request.kinds[:1], denoising_end=None)


def _second_pass(request: ResolvedRequest) -> ResolvedRequest:
    """The larger pass, without what it begins from: there is none yet, which its kind tells."""
    hires, size = request.hires, (request.height, request.width)
    assert hires is not None
    steps = hires.whole_steps(request.num_inference_steps)
    given, made = second_input(hires, steps), (hires.height, hires.width)
    return replace(
        request,
        hires=None,
        height=hires.height,
        width=hires.width,
        num_inference_steps=steps,
        latents=None,
        pictures=replace(given, latents=np.empty(0, np.float32)) if hires.upscaler == "latent" else given,
        original_size=made if request.original_size == size else request.original_size,
        target_size=made if request.target_size == size else request.target_size,
    )
