"""One call on its way from request to pictures: the steps, each loading and releasing what the plan says.

Prompts → tokens and noise levels (`prepare`) → embeddings (`encode`) → latents, step by step (`steps`) → pictures
(`pictures`). What a later step does not need is dropped before it: a model's embeddings when its keys and values are
there, those when its part of the loop has ended.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from .architecture import Models
from .conditioning import Conditioning, condition, time_ids
from .decoding import decoded
from .errors import RequestError
from .guidance import guided_model
from .memory.plan import MemoryPlan
from .memory.residency import Residency
from .memory.workload import Workload
from .progress import Progress, track
from .request.request import ResolvedRequest
from .runners.base import Runner
from .sampling.denoise import Step, denoise
from .sampling.noise import BatchNoise
from .sampling.samplers.base import Array, Noise, Schedule
from .sampling.schedule import evaluation_timesteps, make_schedule, split
from .sampling.torch_noise import TorchNoise
from .text.cache import EncodedChunks
from .text.encode import PromptTokens, Sides, encode, tokenize
from .text.tokenizer import Tokenizer

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

    @classmethod
    def of(cls, request: ResolvedRequest, models: Models, tokenizers: Mapping[str, Tokenizer]) -> Self:
        """Prepare a request. Raises `RequestError` for what only the checkpoint decides, such as too many steps."""
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
        request, parts = self.prepared.request, self.prepared.parts
        _check_embeddings(embeddings, self.prepared.tokens)
        waiting = dict(embeddings)
        del embeddings
        noise = _noise(request)
        latents = request.latents
        if latents is None:
            latents = noise.normal(self.models.vae.latent_shape(request.height, request.width))
        latents = latents * np.float32(self.prepared.init_noise_sigma)
        total, before = sum(len(part.evaluations) for part in parts.values()), 0
        with track(self.progress, "denoise", total=total, unit="step") as advance:
            for kind, part in parts.items():
                # Not in a variable: it would outlive the part.
                latents = yield from self._part(
                    kind, part, self._condition(kind, waiting.pop(kind), part), latents, noise, before, advance
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
        return decoded(self.models, self.runners, self.residency, self.plan, latents, kind, self.progress)

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
    ) -> Steps:
        """One model's part of the loop; `before` evaluations were others'."""
        runner, request = self.runners[f"{kind}/unet"], self.prepared.request
        with (
            self.residency.phase(self.plan, runner.name, self.progress),
            guided_model(runner, prompts, request) as model,
        ):
            steps = denoise(model, latents, part, noise, eta=request.eta)
            step = resume(steps)
            while isinstance(step, Step):
                advance()
                replacement = yield replace(step, index=before + step.index)
                step = resume(steps, replacement)
            return step


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
    if request.denoising_end is None:
        return whole
    # The base walks the first part, the refiner the second one; without a refiner the noise is left in.
    return {kind: split(whole[kind], request.denoising_end)[kind == "refiner"] for kind in whole}
