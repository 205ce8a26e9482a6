"""One call on its way from request to pictures: the steps, each loading and releasing what the plan says.

Prompts → tokens and noise levels (`prepare`) → embeddings (`encode`) → latents, step by step (`steps`) → pictures
(`pictures`). What a later step does not need is dropped before it: a model's embeddings when its keys and values are
there, those when its part of the loop has ended.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .architecture import Models
from .beginning import Beginning, begin
from .conditions import Conditions, Prompts
from .control.beside import NOTHING, Beside
from .control.part import ControlPart
from .control.t2i_adapter import AdapterPart
from .deep_features import DeepFeatures
from .enlarging import larger_latents, larger_pictures
from .errors import RequestError
from .guidance import guided_model
from .inpainting import Inpainting, finishing
from .memory.plan import MemoryPlan
from .memory.residency import Residency
from .pictures_in.input import PictureInput
from .preparation import Prepared
from .progress import Progress, track
from .request.embeds import Sides
from .request.request import ResolvedRequest
from .runners.base import Runner
from .sampling.denoise import Step, denoise
from .sampling.noise import BatchNoise
from .sampling.samplers.base import Array, Noise, Schedule
from .sampling.torch_noise import TorchNoise
from .scenes import GivenText
from .text.cache import EncodedChunks
from .text.encode import PromptTokens, encode
from .text.tokenizer import Tokenizer
from .upscaling.between import enlarged_pictures
from .vae import to_uint8
from .vae_phases import VaePhases

Embeddings = Mapping[str, Sequence[Sides]]
"""Model kind → each prompt's embeddings, and its negative's (None without guidance).

Of a prompt that changes on its way those of its different texts, one after another."""
Steps = Generator[Step, Array | None, Array]


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
        prompts = [prompt for column in tokens.values() for prompt in column if isinstance(prompt, PromptTokens)]
        encoders = {name for prompt in prompts for name in prompt.text_encoders}
        with track(self.progress, "encode", total=len(encoders), unit="encoder") as advance:

            def use(runner: Runner) -> AbstractContextManager[None]:
                return self.residency.phase(self.plan, runner, self.progress)

            sides = iter(encode(self.runners, self.tokenizers, prompts, use=use, cache=self.cache, advance=advance))
        return {
            kind: [one.sides if isinstance(one, GivenText) else next(sides) for one in column]
            for kind, column in tokens.items()
        }

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
                    kind,
                    part,
                    *self._conditions.of(kind, waiting.pop(kind), part),
                    latents,
                    noise,
                    before,
                    advance,
                    inpainting,
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
        return self._vae.decoded(latents, kind, finish=finishing(request.pictures, len(latents)))

    def _beginning(self, noise: Noise) -> Beginning:
        """What the first part starts from."""
        prepared, vae = self.prepared, self.models.vae
        schedule = next(iter(prepared.parts.values()))
        told = [self._told(kind) for kind in prepared.parts]
        sigma, encode = prepared.init_noise_sigma, self._vae.encoded
        any_told, plain = any(told), not all(told)
        return begin(prepared.request, vae, noise, schedule, encode, sigma=sigma, told=any_told, plain=plain)

    @property
    def _vae(self) -> VaePhases:
        return VaePhases(self.models, self.runners, self.residency, self.plan, self.progress)

    def _told(self, kind: str) -> bool:
        """Whether a model takes the mask and the masked picture beside the latents."""
        return self.models.denoisers[kind].unet.inpaints(self.models.vae.latent_channels)

    def _enlarged(self, request: ResolvedRequest, latents: Array) -> PictureInput:
        """What the second pass begins from."""
        given, (height, width) = request.pictures, (request.height, request.width)
        assert given is not None
        if given.latents is not None:
            _, *sides = self.models.vae.latent_shape(height, width)
            return replace(given, latents=larger_latents(latents, *sides))
        small = self._vae.decoded(latents, "np")
        if given.enlarged_by is None or self.beside.upscaler is None:
            return replace(given, pictures=larger_pictures(small, height, width))
        large = enlarged_pictures(
            self.beside.upscaler, [to_uint8(picture) for picture in small], (height, width),
            residency=self.residency, plan=self.plan, progress=self.progress,
        )  # fmt: skip
        return replace(given, pictures=large)

    @property
    def _conditions(self) -> Conditions:
        return Conditions(
            models=self.models, runners=self.runners, beside=self.beside, residency=self.residency, plan=self.plan,
            prepared=self.prepared, progress=self.progress,
        )  # fmt: skip

    def _part(
        self,
        kind: str,
        part: Schedule,
        prompts: Prompts,
        controls: Sequence[ControlPart],
        adapters: Sequence[AdapterPart],
        latents: Array,
        noise: Noise,
        before: int,
        advance: Callable[[], None],
        inpainting: Inpainting | None,
    ) -> Steps:
        """One model's part of the loop; `before` evaluations were others'."""
        told = self._told(kind)
        runner, request = self.runners[f"{kind}/unet"], self.prepared.request
        beside = inpainting.beside if inpainting is not None and told else None
        features = DeepFeatures(request.deep_cache)
        with ExitStack() as stack:
            for one in (runner, *(control.runner for control in controls)):
                stack.enter_context(self.residency.phase(self.plan, one, self.progress))
            model = stack.enter_context(
                guided_model(runner, prompts, request, controls, adapters, beside=beside, kept=features)
            )
            steps = denoise(model, latents, part, noise, eta=request.eta)
            step = resume(steps)
            while isinstance(step, Step):
                advance()
                kept = None
                if inpainting is not None and not told:
                    kept = inpainting.kept(step.latents, part, part.begin + step.index)
                    step = replace(step, latents=kept)
                replacement = yield replace(step, index=before + step.index)
                if replacement is not None and not np.array_equal(replacement, step.latents):
                    features.drop()
                step = resume(steps, kept if replacement is None else replacement)
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


def _check_embeddings(embeddings: Embeddings, tokens: Mapping[str, Sequence[PromptTokens | GivenText]]) -> None:
    """Raise `RequestError` for embeddings that were made for other models, prompts or guidance."""
    for kind, prompts in tokens.items():
        given, guided = embeddings.get(kind, ()), any(prompt.guided for prompt in prompts)
        if len(given) != len(prompts) or any((side is not None) != guided for _, side in given):
            raise RequestError(
                f"the embeddings do not fit the request: its {kind} needs those of {len(prompts)} prompts, "
                f"{'each with its negative' if guided else 'without negatives'}; encode this request"
            )
