"""From prompt to picture: load an engine once, call it for pictures.

pipe = Pipeline.load()                      # the bundled miniature, or a folder that `pocketxl build` made
picture = pipe("a red apple", seed=7).images[0]
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from .conditioning import Conditioning, condition, time_ids
from .denoise import Model, OnStep, Stop, denoise
from .errors import RequestError
from .guidance import guide
from .manifest import Manifest, checked_path, read_manifest
from .memory import LEAST, MemoryPlan, make_plan, parse_bytes
from .miniature import engine_folder
from .noise import BatchNoise
from .progress import Progress, Silent, track
from .request import GenerationRequest, ValidRequest
from .residency import Residency
from .runners import open_runners
from .runners.base import Runner
from .samplers.base import Array, Schedule
from .schedule import evaluation_timesteps, make_schedule, split
from .text import PromptEmbeds, PromptTokens, encode_all, tokenize
from .tokenizer import Tokenizer
from .vae import decode, to_pil
from .validation import validate


def tokenizer_of(text_encoder: str) -> str:
    """`text_encoder` → `tokenizer`; `text_encoder_2`, `refiner/text_encoder_2` → `tokenizer_2`."""
    return text_encoder.rsplit("/", 1)[-1].replace("text_encoder", "tokenizer")


@dataclass(frozen=True, kw_only=True)
class Output:
    """`images`: PIL pictures, or arrays (n, H, W, 3) in [0, 1], or latents (n, 4, H/8, W/8), by `output_type`."""

    images: Any
    seeds: tuple[int, ...]
    """The seed of each picture; a call with it makes the same picture again."""
    request: ValidRequest
    """What was done, every default filled in."""


class Pipeline:
    """One engine, ready for calls. Safe to share between threads: calls run one after another."""

    def __init__(
        self,
        manifest: Manifest,
        runners: Mapping[str, Runner],
        tokenizers: Mapping[str, Tokenizer],
        *,
        memory_budget: int | None = None,
        name: str = "",
    ) -> None:
        self.manifest = manifest
        self.runners = runners
        self.name = name
        self._tokenizers = tokenizers
        self._budget = memory_budget
        self._residency = Residency(runners)
        self._lock = threading.Lock()
        self._caller: int | None = None
        self._interrupted = threading.Event()

    @classmethod
    def load(
        cls, path: str | Path | None = None, *, memory_budget: int | str | None = None, threads: int | None = None
    ) -> Self:
        """Open an engine folder (None: the bundled miniature). Weights are loaded when the first picture needs them.

        `memory_budget`: bytes, or text such as `"4GiB"`; components are then released between the phases as needed
        (`memory.LEAST`: all of them, always).
        `threads`: inside one operator (None: one per core). Raises `IntegrityError`, `IncompatibleError`.
        """
        folder = engine_folder(path)
        manifest = read_manifest(folder)
        budget = memory_budget if memory_budget in (None, LEAST) else parse_bytes(memory_budget)
        tokenizers = {encoder: _open_tokenizer(folder, manifest, encoder) for encoder in manifest.text_encoders}
        runners = open_runners(folder, manifest, threads=threads)
        return cls(manifest, runners, tokenizers, memory_budget=budget, name=folder.resolve().name)

    def __call__(self, prompt: str | Sequence[str] = "", *, progress: Progress | None = None, **options: Any) -> Output:
        """Make pictures. `options` are diffusers' SDXL keywords and defaults; see `GenerationRequest` for all of them.

        Every argument is checked before anything is loaded. Raises `RequestError` (an argument), `MemoryBudgetError`,
        `NumericError` (NaN or Inf: never a black picture) and `IntegrityError` (a damaged file).
        """
        request = validate(
            GenerationRequest.of({"prompt": prompt, **options}),
            native_size=self.manifest.native_size,
            has_refiner="refiner" in self.manifest.models,
            latent_channels=self.manifest.vae.latent_channels,
            downscale=self.manifest.vae.downscale,
        )
        with self._exclusive():
            self._interrupted.clear()
            return self._generate(request, progress or Silent())

    def plan(self, *, width: int | None = None, height: int | None = None, **options: Any) -> MemoryPlan:
        """What would be in memory when, and the predicted peak, without loading anything; see `make_plan`."""
        native = self.manifest.native_size
        options.setdefault("budget", self._budget)
        return make_plan(self.manifest, width=width or native, height=height or native, **options)

    def interrupt(self) -> None:
        """End the running call after its current step; it returns what there is by then. For other threads."""
        self._interrupted.set()

    def close(self) -> None:
        """Release all memory; the pipeline can be called again and loads anew."""
        with self._exclusive():
            self._residency.release_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """One call at a time; a call out of a running one (out of its callback) would wait for itself."""
        if self._caller == threading.get_ident():
            raise RequestError("the pipeline is busy with the call that this callback belongs to; return from it first")
        with self._lock:
            self._caller = threading.get_ident()
            try:
                yield
            finally:
                self._caller = None

    def _generate(self, request: ValidRequest, progress: Progress) -> Output:
        kinds = self._kinds(request)
        tokens = self._tokenize(request, kinds)
        plan = self.plan(
            width=request.width,
            height=request.height,
            steps=request.num_inference_steps,
            images=request.images,
            tokens=max(t.tokens for per_kind in tokens.values() for t in per_kind),
            refiner="refiner" in kinds,
            guidance=request.guidance,
        )
        self._residency.make_room(plan)
        embeds = self._encode(plan, tokens, progress)
        parts = self._schedules(request, kinds)
        rows = {kind: self._condition(plan, request, kind, embeds[kind], parts[kind]) for kind in kinds}
        latents = self._denoise(plan, request, rows, parts, progress)
        if request.output_type == "latent":
            return Output(images=latents, seeds=request.seeds, request=request)
        with (
            self._residency.phase(plan, "vae_decoder"),
            track(progress, "decode", total=len(latents), unit="image") as done,
        ):
            pictures = decode(self.runners["vae_decoder"], latents, self.manifest.vae.scaling_factor, done)
        images = to_pil(pictures) if request.output_type == "pil" else pictures
        return Output(images=images, seeds=request.seeds, request=request)

    def _kinds(self, request: ValidRequest) -> tuple[str, ...]:
        """The models that take part, in running order."""
        return ("base", "refiner") if request.refiner else ("base",)

    def _tokenize(self, request: ValidRequest, kinds: Sequence[str]) -> dict[str, list[PromptTokens]]:
        """Per model: every prompt as tokens."""
        tokens: dict[str, list[PromptTokens]] = {}
        for kind in kinds:
            model = self.manifest.models[kind]
            tokens[kind] = [
                tokenize(
                    self._tokenizers,
                    texts.prompt,
                    texts.prompt_2,
                    texts.negative_prompt,
                    texts.negative_prompt_2,
                    text_encoders=model.text_encoders,
                    force_zeros_for_empty_prompt=model.force_zeros_for_empty_prompt,
                    guidance=request.guidance,
                )
                for texts in request.prompts
            ]
        return tokens

    def _encode(
        self, plan: MemoryPlan, tokens: Mapping[str, list[PromptTokens]], progress: Progress
    ) -> dict[str, list[tuple[PromptEmbeds, PromptEmbeds | None]]]:
        """Per model: every prompt's embeddings. All prompts together, so that each encoder is loaded once."""
        prompts = [prompt for per_kind in tokens.values() for prompt in per_kind]
        encoders = {name for prompt in prompts for name in prompt.text_encoders}
        with track(progress, "encode", total=len(encoders), unit="encoder") as advance:

            @contextmanager
            def use(runner: Runner) -> Iterator[None]:
                with self._residency.phase(plan, runner.name):
                    yield
                advance()

            embeds = iter(encode_all(self.runners, self._tokenizers, prompts, use=use))
        return {kind: list(islice(embeds, len(per_kind))) for kind, per_kind in tokens.items()}

    def _schedules(self, request: ValidRequest, kinds: Sequence[str]) -> dict[str, Schedule]:
        whole = {
            kind: make_schedule(
                self.manifest.models[kind].scheduler,
                sampler=request.sampler,
                schedule=request.schedule,
                num_inference_steps=request.num_inference_steps,
                timesteps=request.timesteps,
                sigmas=request.sigmas,
            )
            for kind in kinds
        }
        if request.denoising_end is None:
            return whole
        # The base walks the first part, the refiner the second one; without a refiner the noise is left in.
        return {kind: split(whole[kind], request.denoising_end)[kind == "refiner"] for kind in whole}

    def _condition(
        self,
        plan: MemoryPlan,
        request: ValidRequest,
        kind: str,
        embeds: Sequence[tuple[PromptEmbeds, PromptEmbeds | None]],
        schedule: Schedule,
    ) -> list[tuple[Conditioning, Conditioning | None]]:
        """Per prompt: what the U-Net needs for the prompt, and for its negative (None without guidance)."""
        timesteps = evaluation_timesteps(schedule)
        if not len(timesteps):
            return []
        name = f"{kind}/conditioner"
        arch = self.manifest.models[kind].unet
        ids, negative_ids = time_ids(request, aesthetic=arch.time_ids == 5)
        with self._residency.phase(plan, name):
            runner = self.runners[name]
            return [
                (
                    condition(runner, positive, ids, timesteps),
                    None if negative is None else condition(runner, negative, negative_ids, timesteps),
                )
                for positive, negative in embeds
            ]

    def _denoise(
        self,
        plan: MemoryPlan,
        request: ValidRequest,
        rows: Mapping[str, list[tuple[Conditioning, Conditioning | None]]],
        parts: Mapping[str, Schedule],
        progress: Progress,
    ) -> Array:
        noise = BatchNoise(request.seeds)
        downscale = self.manifest.vae.downscale
        shape = (self.manifest.vae.latent_channels, request.height // downscale, request.width // downscale)
        latents = noise.normal(shape) if request.latents is None else request.latents
        latents = latents * np.float32(parts["base"].init_noise_sigma)
        with track(progress, "denoise", total=sum(len(p.evaluations) for p in parts.values()), unit="step") as advance:
            before = 0
            for kind, part in parts.items():
                if not part.evaluations or self._interrupted.is_set():
                    continue
                with self._residency.phase(plan, f"{kind}/unet"):
                    model = self._model(self.runners[f"{kind}/unet"], rows[kind], request)
                    on_step = self._on_step(request, before, advance)
                    latents = denoise(model, latents, part, noise, eta=request.eta, on_step=on_step)
                before += len(part.evaluations)
        return latents

    def _model(
        self, runner: Runner, rows: Sequence[tuple[Conditioning, Conditioning | None]], request: ValidRequest
    ) -> Model:
        """The U-Net with its conditioning and guidance.

        One row a call: a quantized U-Net takes its activation ranges from all rows together, so only alone is a picture
        the same in every batch; it also keeps the working memory at that of one row, and a processor gains nothing
        from more.
        """

        def predict(latents: Array, row: Conditioning, evaluation: int) -> Array:
            return runner({"latents": latents, **row.inputs(evaluation)})["prediction"]

        def model(latents: Array, evaluation: int) -> Array:
            predictions = []
            for index in range(len(latents)):
                one = latents[index : index + 1]
                positive, negative = rows[index // request.num_images_per_prompt]
                prediction = predict(one, positive, evaluation)
                if negative is not None:
                    unconditional = predict(one, negative, evaluation)
                    prediction = guide(unconditional, prediction, request.guidance_scale, request.guidance_rescale)
                predictions.append(prediction)
            return np.concatenate(predictions)

        return model

    def _on_step(self, request: ValidRequest, before: int, advance: Any) -> OnStep:
        callback = request.callback_on_step_end

        def on_step(index: int, timestep: float, latents: Array) -> Any:
            advance()
            changed = None
            if callback is not None:
                changed = _replacement(callback(self, before + index, timestep, {"latents": latents}))
            return Stop(changed) if self._interrupted.is_set() else changed

        return on_step


def _replacement(answer: object) -> Array | None:
    """The latents in what a callback returned: None, or a mapping with the key `latents`, as in diffusers."""
    if answer is None:
        return None
    if not isinstance(answer, Mapping) or not set(answer) <= {"latents"}:
        given = sorted(map(str, answer)) if isinstance(answer, Mapping) else type(answer).__name__
        raise RequestError(f"callback_on_step_end returned {given}; return None or {{'latents': array}}")
    if "latents" not in answer:
        return None
    try:
        latents = np.asarray(answer["latents"])
    except (TypeError, ValueError, RuntimeError) as error:  # a tensor on a GPU, or in bfloat16
        raise RequestError(f"callback_on_step_end returned latents that numpy cannot read ({error})") from error
    if latents.dtype.kind != "f":
        raise RequestError(f"callback_on_step_end returned latents of type {latents.dtype}; return floats")
    return latents


def _open_tokenizer(folder: Path, manifest: Manifest, encoder: str) -> Tokenizer:
    name = tokenizer_of(encoder)
    paths = [checked_path(folder, file) for file in manifest.tokenizers[name]]
    return Tokenizer({path.name: path.read_bytes() for path in paths}, source=str(folder / name))
