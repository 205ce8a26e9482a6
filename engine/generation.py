"""One call on its way from request to pictures: the steps, each loading and releasing what the plan says.

Prompts → tokens and noise levels (`prepare`) → embeddings (`encode`) → latents, step by step (`steps`) → pictures
(`pictures`). What a later step does not need is dropped before it: a model's embeddings when its keys and values are
there, those when its part of the loop has ended.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from .architecture import Models, block_names
from .conditioning import Conditioning, condition, time_ids
from .control.beside import NOTHING, Beside
from .control.image_prompt import Arrays, factors_of, features_of, key_values_of, with_pictures
from .control.part import ControlPart, encode_hint
from .errors import RequestError
from .guidance import guided_model
from .memory.controls import MODEL
from .memory.plan import MemoryPlan
from .memory.residency import Residency
from .memory.workload import Workload
from .progress import Progress, track
from .request.controls import ControlUse
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
from .vae import decode, to_pil

Embeddings = Mapping[str, Sequence[Sides]]
"""Model kind → each prompt's embeddings, and its negative's (None without guidance)."""
Steps = Generator[Step, Array | None, Array]
Prompts = Sequence[tuple[Conditioning, ...]]
"""What a network of the loop is given for each prompt, and its negative."""


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

    def controls(self, kind: str) -> tuple[ControlUse, ...]:
        """The ControlNets that take part in that model's part of the loop."""
        return self.request.controls if kind == MODEL else ()

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
    beside: Beside = NOTHING

    def encode(self) -> dict[str, list[Sides]]:
        """Every prompt's embeddings for every model that takes part, so that each encoder is loaded once."""
        tokens = self.prepared.tokens
        prompts = [prompt for column in tokens.values() for prompt in column]
        encoders = {name for prompt in prompts for name in prompt.text_encoders}
        with track(self.progress, "encode", total=len(encoders), unit="encoder") as advance:

            def use(runner: Runner) -> AbstractContextManager[None]:
                return self.residency.phase(self.plan, runner, self.progress)

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
                    kind, part, *self._conditioned(kind, waiting.pop(kind), part), latents, noise, before, advance
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

    def _conditioned(self, kind: str, prompts: Sequence[Sides], part: Schedule) -> tuple[Prompts, list[ControlPart]]:
        """What the U-Net is given for each prompt and its negative, and what ControlNets are."""
        hints = {}
        uses = [(use, self.beside.controlnets[use.name]) for use in self.prepared.controls(kind)]
        for use, control in uses:
            with self.residency.phase(self.plan, control.hint_encoder, self.progress):
                hints[use.name] = encode_hint(control.hint_encoder, use)
        controls = [
            ControlPart(
                runner=control.unet,
                hint=hints[use.name],
                prompts=self._condition(control.conditioner, kind, prompts, part),
                scales=use.scales(len(part.evaluations)),
            )
            for use, control in uses
        ]
        pictured = self._pictured(kind)
        conditioned = self._condition(self.runners[f"{kind}/conditioner"], kind, prompts, part)
        return (conditioned if pictured is None else with_pictures(conditioned, pictured)), controls

    def _pictured(self, kind: str) -> tuple[Arrays, Arrays] | None:
        """Keys and values of the pictures that are prompts, and of none; None without any."""
        prompt, adapter = self.prepared.request.image_prompt, self.beside.ip_adapter
        if prompt is None or adapter is None or kind != MODEL:
            return None
        with self.residency.phase(self.plan, adapter.encoder, self.progress):
            features = features_of(adapter.encoder, prompt, plus=adapter.architecture.plus)
        with self.residency.phase(self.plan, adapter.projection, self.progress):
            blocks = block_names(self.models.denoisers[kind].unet)
            factors = factors_of(self.runners[f"{kind}/conditioner"])
            own, none = (key_values_of(adapter.projection, one, prompt.scale, factors, blocks) for one in features)
        return own, none

    def _condition(self, runner: Runner, kind: str, prompts: Sequence[Sides], part: Schedule) -> Prompts:
        """What a conditioner makes of each prompt and its negative, in rows as the model's U-Net takes them."""
        rows = self.runners[f"{kind}/unet"].rows
        ids = time_ids(self.prepared.request, self.models.denoisers[kind].unet.size_ids)
        with self.residency.phase(self.plan, runner, self.progress):
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
        prompts: Prompts,
        controls: Sequence[ControlPart],
        latents: Array,
        noise: Noise,
        before: int,
        advance: Callable[[], None],
    ) -> Steps:
        """One model's part of the loop; `before` evaluations were others'."""
        runner, request = self.runners[f"{kind}/unet"], self.prepared.request
        with ExitStack() as stack:
            for one in (runner, *(control.runner for control in controls)):
                stack.enter_context(self.residency.phase(self.plan, one, self.progress))
            model = stack.enter_context(guided_model(runner, prompts, request, controls))
            steps = denoise(model, latents, part, noise, eta=request.eta)
            step = resume(steps)
            while isinstance(step, Step):
                advance()
                replacement = yield replace(step, index=before + step.index)
                step = resume(steps, replacement)
            return step


def decoded(
    models: Models,
    runners: Mapping[str, Runner],
    residency: Residency,
    plan: MemoryPlan,
    latents: Array,
    output_type: str,
    progress: Progress,
) -> Any:
    """Latents (n, C, h, w) → PIL pictures (`pil`) or arrays (n, H, W, 3) in [0, 1] (`np`), each as it is done."""
    vae, (height, width) = runners["vae_decoder"], latents.shape[2:]
    side = models.vae.downscale
    with (
        residency.phase(plan, vae, progress),
        track(progress, "decode", total=len(latents), unit="image") as advance,
    ):
        shape = (len(latents), height * side, width * side, 3)
        pictures: Any = [] if output_type == "pil" else np.empty(shape, np.float32)
        for index, picture in enumerate(decode(vae, latents, models.vae.scaling_factor)):
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
    if request.denoising_end is None:
        return whole
    # The base walks the first part, the refiner the second one; without a refiner the noise is left in.
    return {kind: split(whole[kind], request.denoising_end)[kind == "refiner"] for kind in whole}
