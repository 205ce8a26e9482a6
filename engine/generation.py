"""One call on its way from request to pictures: the five steps, each loading and releasing what the plan says."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from .conditioning import condition, time_ids
from .folder.manifest import Manifest
from .guidance import Guided, guided_model
from .memory.plan import MemoryPlan, make_plan
from .memory.residency import Residency
from .progress import Progress, track
from .request.request import ValidRequest
from .runners.base import Runner
from .sampling.denoise import OnStep, denoise
from .sampling.noise import BatchNoise
from .sampling.samplers.base import Array, Schedule
from .sampling.schedule import evaluation_timesteps, make_schedule, split
from .text.encode import PromptEmbeds, PromptTokens, encode_all, tokenize
from .text.tokenizer import Tokenizer
from .vae import decode, to_pil

Embeds = tuple[PromptEmbeds, PromptEmbeds | None]


@dataclass(frozen=True, kw_only=True)
class Generation:
    """One call. Dictionaries are by model kind (`base`, `refiner`), lists by prompt."""

    manifest: Manifest
    runners: Mapping[str, Runner]
    tokenizers: Mapping[str, Tokenizer]
    residency: Residency
    budget: int | None
    request: ValidRequest
    progress: Progress
    on_step: Callable[[int, Callable[[], None]], OnStep]
    """(steps done before this part, what to call after each step) → the loop's callback."""
    interrupted: Callable[[], bool]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The models that take part, in running order."""
        return ("base", "refiner") if self.request.refiner else ("base",)

    def run(self) -> Any:
        """Make the pictures, in the form that the request asks for."""
        tokens = self.tokenize()
        plan = self.plan(tokens)
        self.residency.make_room(plan)
        embeds = self.encode(plan, tokens)
        parts = self.schedules()
        rows = {kind: self.condition(plan, kind, embeds[kind], parts[kind]) for kind in self.kinds}
        latents = self.denoise(plan, rows, parts)
        return latents if self.request.output_type == "latent" else self.decode(plan, latents)

    def tokenize(self) -> dict[str, list[PromptTokens]]:
        """Every prompt as tokens, as each model's text encoders take it."""
        return {kind: [self._tokens(kind, index) for index in range(len(self.request.prompts))] for kind in self.kinds}

    def _tokens(self, kind: str, index: int) -> PromptTokens:
        model, texts = self.manifest.models.denoisers[kind], self.request.prompts[index]
        return tokenize(
            self.tokenizers,
            texts.prompt,
            texts.prompt_2,
            texts.negative_prompt,
            texts.negative_prompt_2,
            text_encoders=model.text_encoders,
            force_zeros_for_empty_prompt=model.force_zeros_for_empty_prompt,
            guidance=self.request.guidance,
        )

    def plan(self, tokens: Mapping[str, list[PromptTokens]]) -> MemoryPlan:
        """What is in memory when. Raises `MemoryBudgetError` before anything is loaded."""
        return make_plan(
            self.manifest,
            width=self.request.width,
            height=self.request.height,
            steps=self.request.num_inference_steps,
            images=self.request.images,
            tokens=max(prompt.tokens for prompts in tokens.values() for prompt in prompts),
            refiner="refiner" in self.kinds,
            guidance=self.request.guidance,
            budget=self.budget,
        )

    def encode(self, plan: MemoryPlan, tokens: Mapping[str, list[PromptTokens]]) -> dict[str, list[Embeds]]:
        """Every prompt's embeddings. All prompts together, so that each encoder is loaded once."""
        prompts = [prompt for per_kind in tokens.values() for prompt in per_kind]
        encoders = {name for prompt in prompts for name in prompt.text_encoders}
        with track(self.progress, "encode", total=len(encoders), unit="encoder") as advance:

            @contextmanager
            def use(runner: Runner) -> Iterator[None]:
                with self.residency.phase(plan, runner.name):
                    yield
                advance()

            embeds = iter(encode_all(self.runners, self.tokenizers, prompts, use=use))
        return {kind: list(islice(embeds, len(per_kind))) for kind, per_kind in tokens.items()}

    def schedules(self) -> dict[str, Schedule]:
        """Each model's part of the noise levels."""
        request = self.request
        whole = {
            kind: make_schedule(
                self.manifest.models.denoisers[kind].scheduler,
                sampler=request.sampler,
                schedule=request.schedule,
                num_inference_steps=request.num_inference_steps,
                timesteps=request.timesteps,
                sigmas=request.sigmas,
            )
            for kind in self.kinds
        }
        if request.denoising_end is None:
            return whole
        # The base walks the first part, the refiner the second one; without a refiner the noise is left in.
        return {kind: split(whole[kind], request.denoising_end)[kind == "refiner"] for kind in whole}

    def condition(self, plan: MemoryPlan, kind: str, embeds: list[Embeds], schedule: Schedule) -> list[Guided]:
        """What the U-Net needs for each prompt, and for its negative (None without guidance)."""
        timesteps = evaluation_timesteps(schedule)
        if not len(timesteps):
            return []
        runner = self.runners[f"{kind}/conditioner"]
        ids, negative_ids = time_ids(self.request, self.manifest.models.denoisers[kind].unet.size_ids)
        with self.residency.phase(plan, runner.name):
            return [
                Guided(
                    positive=condition(runner, positive, ids, timesteps),
                    negative=None if negative is None else condition(runner, negative, negative_ids, timesteps),
                )
                for positive, negative in embeds
            ]

    def denoise(self, plan: MemoryPlan, rows: Mapping[str, list[Guided]], parts: Mapping[str, Schedule]) -> Array:
        """The loop: from each picture's own noise through the base's part and the refiner's."""
        request, vae = self.request, self.manifest.models.vae
        noise = BatchNoise(request.seeds)
        shape = (vae.latent_channels, request.height // vae.downscale, request.width // vae.downscale)
        latents = noise.normal(shape) if request.latents is None else request.latents
        latents = latents * np.float32(parts["base"].init_noise_sigma)
        total = sum(len(part.evaluations) for part in parts.values())
        with track(self.progress, "denoise", total=total, unit="step") as advance:
            before = 0
            for kind, part in parts.items():
                if not part.evaluations or self.interrupted():
                    continue
                runner = self.runners[f"{kind}/unet"]
                with self.residency.phase(plan, runner.name):
                    model = guided_model(runner, rows[kind], request)
                    on_step = self.on_step(before, advance)
                    latents = denoise(model, latents, part, noise, eta=request.eta, on_step=on_step)
                before += len(part.evaluations)
        return latents

    def decode(self, plan: MemoryPlan, latents: Array) -> Any:
        """Latents → PIL pictures or arrays."""
        vae = self.runners["vae_decoder"]
        with (
            self.residency.phase(plan, vae.name),
            track(self.progress, "decode", total=len(latents), unit="image") as done,
        ):
            pictures = decode(vae, latents, self.manifest.models.vae.scaling_factor, done)
        return to_pil(pictures) if self.request.output_type == "pil" else pictures
