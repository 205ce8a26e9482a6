"""From prompt to picture: load an engine once, call it for pictures.

    pipe = Pipeline.load()                      # the bundled miniature, or a folder that `pocketxl build` made
    picture = pipe("a red apple", seed=7).images[0]

A call is made of steps that can be had one by one:

    request = pipe.request("a red apple", seed=7)
    for step in pipe.sample(request, pipe.encode(request)):
        latents = step.latents
    picture = pipe.decode(latents)[0]
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

from .adapters.adapting import Adapting, Effect
from .architecture import Models
from .control.beside import NOTHING, Beside
from .ending import Ending, Endings, seconds_of
from .errors import MemoryBudgetError
from .folder.manifest import read_manifest
from .generation import Embeddings, Generation, Steps
from .memory.budget import OUT_OF_MEMORY, budget_of
from .memory.plan import MemoryPlan, make_plan
from .memory.residency import Residency
from .memory.workload import Workload
from .miniature import engine_folder
from .output import Output
from .picture.parameters import HASH_DIGITS
from .preparation import Prepared
from .preview import Previews
from .progress import Progress, Silent
from .request.decoders import checked_decoder
from .request.keywords import CallOptions
from .request.limits import integer
from .request.loras import Loras
from .request.request import ResolvedRequest
from .request.resolve import resolve
from .runners import check_concurrent, open_runners
from .runners.base import Runner
from .sampling.samplers.base import Array
from .slots import Slots
from .text.cache import EncodedChunks
from .text.tokenizer import Tokenizer, open_tokenizers
from .vae import check_latents
from .vae_phases import VaePhases
from .walk import walk


class Pipeline:
    """One engine, ready for calls (one at a time, or `max_concurrent_calls`). Safe to share between threads."""

    def __init__(
        self,
        models: Models,
        runners: Mapping[str, Runner],
        tokenizers: Mapping[str, Tokenizer],
        *,
        memory_budget: int | None = None,
        max_concurrent_calls: int = 1,
        name: str = "",
        digest: str = "",
        beside: Beside = NOTHING,
        folder: Path | None = None,
    ) -> None:
        """`runners` by component, `tokenizers` by the text encoder that each serves; see `load`."""
        self.models = models
        self.beside = beside
        self.runners = runners = beside.with_runners(runners)
        self.tokenizers = tokenizers
        self.name = name
        self.digest = digest
        """Tells engines apart, whatever their folders are called: sha256 in hex over the names and hashes of files."""
        self.preview = Previews(models, folder)
        """Called with a `Step` or latents: PIL pictures of them, or with `output_type="np"` an array; loads nothing."""
        self._budget = memory_budget
        self._slots = Slots(integer("max_concurrent_calls", max_concurrent_calls))
        self._residency = Residency(runners)
        self._adapting = Adapting(runners, models)
        self._encoded = EncodedChunks()
        self._endings = Endings()
        check_concurrent(max_concurrent_calls, runners.values())

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        *,
        memory_budget: int | str | None = None,
        threads: int | None = None,
        provider: str | None = None,
        max_concurrent_calls: int = 1,
        loras: Loras | None = None,
        controlnets: Mapping[str, str | Path] | None = None,
        ip_adapter: str | Path | None = None,
        t2i_adapters: Mapping[str, str | Path] | None = None,
        upscaler: str | Path | None = None,
    ) -> Self:
        """Open an engine folder (None: the bundled miniature). Weights are loaded when the first picture needs them.

        `memory_budget`: bytes, or text such as `"4GiB"`; components are then released between the phases as needed
        (`LEAST`: all of them, always; None: none of them on a processor, and on a GPU what its free memory asks for).
        `threads`: of each component, inside one operator (None: one per fast core that is ours). `provider`: of ONNX
        Runtime, `cuda`, `directml`, `tensorrt-rtx`, `openvino` or `cpu` (None: in half precision the best here, else
        `cpu`). `max_concurrent_calls`: that many at once share it all. `loras`: see `set_adapters`;
        `controlnets` and the two below it: docs/control.md; `upscaler` (a folder): docs/pictures_in.md. Raises
        `IntegrityError`, `IncompatibleError`.
        """
        manifest = read_manifest(folder := engine_folder(path))
        how: Any = {"threads": threads, "provider": provider}
        runners = open_runners(folder, manifest, **how)
        beside = Beside.opened(folder, manifest, runners, controlnets, ip_adapter, t2i_adapters, upscaler, **how)
        made = cls(
            manifest.models, runners, open_tokenizers(folder, manifest), memory_budget=budget_of(memory_budget),
            max_concurrent_calls=max_concurrent_calls, name=folder.resolve().name, digest=manifest.digest,
            beside=beside, folder=folder,
        )  # fmt: skip
        made.set_adapters(loras or {})
        return made

    def set_adapters(self, loras: Loras) -> None:
        """Let calls that do not say otherwise (by `loras`) have these LoRAs: file → weight; with `{}` none any more.

        A file that was read before may be named without folder and ending. Raises `RequestError`, `IntegrityError` for
        a damaged file, `IncompatibleError` for one of another model. Calls that are running go on as they were.
        """
        self._adapting.set(loras)

    def __call__(
        self,
        prompt: str | Sequence[str] = "",
        *,
        progress: Progress | None = None,
        cancel: threading.Event | None = None,
        deadline: float | None = None,
        **options: Unpack[CallOptions],
    ) -> Output:
        """Make pictures. `options` are diffusers' SDXL keywords and defaults; see `GenerationRequest` for all of them.

        `cancel`: set it from another thread to end this call (`interrupt` does so for every call that runs);
        `deadline`: seconds after which it ends by itself. Either stops a running step in its middle; the output then
        says `interrupted`, and its pictures are what the last finished step left, decoded. Every argument is checked
        before anything is loaded. Raises `RequestError` (an argument), `MemoryBudgetError`, `NumericError` (NaN or Inf:
        never a black picture) and `IntegrityError` (a damaged file).
        """
        request = self.request(prompt, **options)
        with self._endings.one(cancel, seconds_of(deadline)) as ending:
            return self._make(request, progress, ending)

    def stream(
        self,
        prompt: str | Sequence[str] = "",
        *,
        progress: Progress | None = None,
        cancel: threading.Event | None = None,
        deadline: float | None = None,
        **options: Unpack[CallOptions],
    ) -> Iterator[Output]:
        """The pictures of a call one after another, each finished before the next is begun; arguments as in a call.

        An interrupted picture is the last one. Arguments are checked at once, not at the first picture.
        """
        request, seconds = self.request(prompt, **options), seconds_of(deadline)

        def pictures() -> Iterator[Output]:
            with self._endings.one(cancel, seconds) as ending:
                for index in range(request.images):
                    output = self._make(request.picture(index), progress, ending)
                    yield output
                    if output.interrupted:
                        return

        return pictures()

    def request(self, prompt: str | Sequence[str] = "", **options: Unpack[CallOptions]) -> ResolvedRequest:
        """Check what a call would take, with every default filled in. Raises `RequestError`."""
        if options.get("loras") is None:
            options["loras"] = self._adapting.own
        return self._adapting.named(resolve({"prompt": prompt, **options}, self.models, *self.beside.called))

    def encode(self, request: ResolvedRequest, *, progress: Progress | None = None) -> Embeddings:
        """The prompts' embeddings: model kind → for each prompt its own and its negative's; good for many `sample`s."""
        with self._slot():
            return self._generation(request, progress).encode()

    def sample(self, request: ResolvedRequest, embeddings: Embeddings, *, progress: Progress | None = None) -> Steps:
        """The denoising loop: yields a `Step` (index, timestep, latents) after every evaluation of a model.

        `send` other latents (n, 4, H/8, W/8) to go on from; the generator returns the last ones. It counts as a running
        call until it has ended or was closed.
        """
        with self._slot():
            generation = self._generation(request, progress)
            return (yield from generation.steps(embeddings))

    def decode(
        self, latents: Array, *, output_type: str = "pil", decoder: str = "full", progress: Progress | None = None
    ) -> Any:
        """Latents (n, 4, h, w) of unit variance → pictures, as PIL images or arrays (n, 8h, 8w, 3) in [0, 1]."""
        check_latents(latents, self.models.vae.latent_channels, output_type)
        with self._slot():
            workload = Workload.of_decoding(
                latents.shape, self.models.vae.downscale, checked_decoder(decoder, self.models)
            )
            plan = self._plan(workload, self._budget, Effect(runners=self.runners))
            self._residency.make_room(plan)
            vae = VaePhases(self.models, self.runners, self._residency, plan, progress or Silent())
            return vae.decoded(latents, output_type)

    def plan(
        self, prompt: str | Sequence[str] = "", *, budget: int | str | None = None, **options: Unpack[CallOptions]
    ) -> MemoryPlan:
        """What would be in memory when, and the predicted peak, for a call with these arguments; nothing is loaded.

        `budget`: bytes or text (None: the pipeline's own). Raises what the call would raise.
        """
        prepared = Prepared.of(self.request(prompt, **options), self.models, self.tokenizers)
        effect = self._adapting.effect(prepared.request)
        return self._plan(prepared.workload, self._budget if budget is None else budget_of(budget), effect)

    def interrupt(self) -> None:
        """End every running call, a step of it in its middle; each returns what there is by then. For other threads."""
        self._endings.end_all()

    def close(self) -> None:
        """Release all memory, once the running calls have ended; the pipeline can be called again and loads anew."""
        self._adopt()
        with self._slots.all():
            self._encoded.clear()
            self._residency.release_all()

    def __repr__(self) -> str:
        loaded, size = self._residency.loaded(), self.models.native_size
        return (
            f"<Pipeline {self.name or 'without a name'}: {', '.join(self.models.denoisers)}, native size "
            f"{size}x{size}; loaded: {', '.join(loaded) or 'nothing yet'}>"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _make(self, request: ResolvedRequest, progress: Progress | None, ending: Ending) -> Output:
        """One call, from encoding to pictures."""
        tell = request.callback_on_step_end
        on_step = tell and (lambda step: tell(self, step.index, step.timestep, step.arrays))
        with self._slot():
            try:
                generation = self._generation(request, progress)
                with ending.in_effect():
                    walked = walk(generation, on_step, ending)
                images = generation.pictures(walked.latents)
            except MemoryError as error:
                raise MemoryBudgetError(OUT_OF_MEMORY) from error
        return Output(
            images=images, seeds=request.seeds, request=request, steps=walked.steps, interrupted=walked.interrupted,
            model=self.name, model_hash=self.digest[:HASH_DIGITS],
        )  # fmt: skip

    def _generation(self, request: ResolvedRequest, progress: Progress | None) -> Generation:
        """Prepare and plan a call. Raises `MemoryBudgetError` before anything is loaded."""
        prepared = Prepared.of(request, self.models, self.tokenizers)
        effect = self._adapting.effect(request)
        plan = self._plan(prepared.workload, self._budget, effect)
        self._residency.make_room(plan)
        return Generation(
            models=self.models, runners=effect.runners, tokenizers=self.tokenizers, residency=self._residency,
            plan=plan, prepared=prepared, progress=progress or Silent(), cache=self._encoded.under(effect.keys),
            beside=self.beside,
        )  # fmt: skip

    def _plan(self, workload: Workload, budget: int | None, on: Effect) -> MemoryPlan:
        return make_plan(self.models, on.runners, workload, budget=budget, calls=self._slots.count, beside=on.bytes)

    @contextmanager
    def _slot(self) -> Iterator[None]:
        self._adopt()
        with self._slots.one():
            yield

    def _adopt(self) -> None:
        """Make the pipeline this process's own after a fork: nothing that the other one was doing goes on here."""
        if self._slots.inherited:
            self._residency.leave_behind()
            self._slots = Slots(self._slots.count)
            self._residency = Residency(self.runners)
            self._adapting = self._adapting.anew()
            self._encoded = EncodedChunks()
