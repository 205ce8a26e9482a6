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
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from .architecture import Models
from .errors import RequestError
from .folder.manifest import Manifest, checked_path, read_manifest
from .generation import Embeddings, Generation, Prepared, Steps, decoded
from .memory.plan import LEAST, MemoryPlan, make_plan
from .memory.residency import Residency
from .memory.sizes import parse_bytes
from .memory.workload import Workload
from .miniature import engine_folder
from .progress import Progress, Silent
from .request.request import ResolvedRequest
from .request.resolve import resolve
from .runners import open_runners
from .runners.base import Runner
from .sampling.denoise import Step
from .sampling.samplers.base import Array
from .text.tokenizer import Tokenizer, tokenizer_of
from .walk import walk


@dataclass(frozen=True, kw_only=True)
class Output:
    """`images`: PIL pictures, or arrays (n, H, W, 3) in [0, 1], or latents (n, 4, H/8, W/8), by `output_type`."""

    images: Any
    seeds: tuple[int, ...]
    """The seed of each picture; a call with it makes the same picture again."""
    request: ResolvedRequest
    """What was asked for, every default filled in."""
    steps: int
    """Evaluations that were made (heun makes two a step)."""
    interrupted: bool
    """True if the call was ended early; the pictures are then unfinished."""


class Pipeline:
    """One engine, ready for calls. Safe to share between threads: calls run one after another."""

    def __init__(
        self,
        models: Models,
        runners: Mapping[str, Runner],
        tokenizers: Mapping[str, Tokenizer],
        *,
        memory_budget: int | None = None,
        name: str = "",
    ) -> None:
        """`runners` by component, `tokenizers` by the text encoder that each serves; see `load`."""
        self.models = models
        self.runners = runners
        self.tokenizers = tokenizers
        self.name = name
        self._budget = memory_budget
        self._residency = Residency(runners)
        self._lock = threading.Lock()
        self._caller: int | None = None
        self._cancel: threading.Event | None = None
        """The running call's."""

    @classmethod
    def load(
        cls, path: str | Path | None = None, *, memory_budget: int | str | None = None, threads: int | None = None
    ) -> Self:
        """Open an engine folder (None: the bundled miniature). Weights are loaded when the first picture needs them.

        `memory_budget`: bytes, or text such as `"4GiB"`; components are then released between the phases as needed
        (`LEAST`: all of them, always).
        `threads`: inside one operator (None: one per core). Raises `IntegrityError`, `IncompatibleError`.
        """
        folder = engine_folder(path)
        manifest = read_manifest(folder)
        tokenizers = {encoder: _open_tokenizer(folder, manifest, encoder) for encoder in manifest.models.text_encoders}
        runners = open_runners(folder, manifest, threads=threads)
        return cls(
            manifest.models, runners, tokenizers, memory_budget=_budget(memory_budget), name=folder.resolve().name
        )

    def __call__(
        self,
        prompt: str | Sequence[str] = "",
        *,
        progress: Progress | None = None,
        cancel: threading.Event | None = None,
        **options: Any,
    ) -> Output:
        """Make pictures. `options` are diffusers' SDXL keywords and defaults; see `GenerationRequest` for all of them.

        `cancel`: set it from another thread to end this call after its current step (`interrupt` does so for whichever
        call runs). Every argument is checked before anything is loaded. Raises `RequestError` (an argument),
        `MemoryBudgetError`, `NumericError` (NaN or Inf: never a black picture) and `IntegrityError` (a damaged file).
        """
        request = self.request(prompt, **options)
        cancel = cancel or threading.Event()
        callback = request.callback_on_step_end
        with self._exclusive():
            self._cancel = cancel
            try:
                generation = self._generation(request, progress)
                steps = generation.steps(generation.encode())
                walked = walk(steps, None if callback is None else partial(self._tell, callback), cancel.is_set)
                images = generation.pictures(walked.latents)
            finally:
                self._cancel = None
        return Output(
            images=images, seeds=request.seeds, request=request, steps=walked.steps, interrupted=walked.interrupted
        )

    def request(self, prompt: str | Sequence[str] = "", **options: Any) -> ResolvedRequest:
        """Check what a call would take, with every default filled in. Raises `RequestError`."""
        return resolve({"prompt": prompt, **options}, self.models)

    def encode(self, request: ResolvedRequest, *, progress: Progress | None = None) -> Embeddings:
        """The prompts' embeddings: model kind → for each prompt its own and its negative's; good for many `sample`s."""
        with self._exclusive():
            return self._generation(request, progress).encode()

    def sample(self, request: ResolvedRequest, embeddings: Embeddings, *, progress: Progress | None = None) -> Steps:
        """The denoising loop: yields a `Step` (index, timestep, latents) after every evaluation of a model.

        `send` other latents (n, 4, H/8, W/8) to go on from; the generator returns the last ones. The pipeline is busy
        until it has ended or was closed.
        """
        with self._exclusive():
            generation = self._generation(request, progress)
            return (yield from generation.steps(embeddings))

    def decode(self, latents: Array, *, output_type: str = "pil", progress: Progress | None = None) -> Any:
        """Latents (n, 4, h, w) of unit variance → pictures, as PIL images or arrays (n, 8h, 8w, 3) in [0, 1]."""
        vae = self.models.vae
        if not isinstance(latents, np.ndarray) or latents.ndim != 4 or latents.shape[1] != vae.latent_channels:
            raise RequestError(f"latents must be an array (n, {vae.latent_channels}, height, width) of floats")
        if output_type not in ("pil", "np"):
            raise RequestError(f"output_type is {output_type!r}; choose pil or np")
        height, width = (int(side) * vae.downscale for side in latents.shape[2:])
        workload = Workload(width=width, height=height, prompt_tokens=(), images=len(latents), guidance=False,
                            evaluations={}, decoded=True)  # fmt: skip
        with self._exclusive():
            plan = make_plan(self.models, self.runners, workload, budget=self._budget)
            self._residency.make_room(plan)
            return decoded(self.models, self.runners, self._residency, plan, latents, output_type, progress or Silent())

    def plan(self, prompt: str | Sequence[str] = "", *, budget: int | str | None = None, **options: Any) -> MemoryPlan:
        """What would be in memory when, and the predicted peak, for a call with these arguments; nothing is loaded.

        `budget`: bytes or text (None: the pipeline's own). Raises what the call would raise.
        """
        chosen = self._budget if budget is None else _budget(budget)
        prepared = Prepared.of(self.request(prompt, **options), self.models, self.tokenizers)
        return make_plan(self.models, self.runners, prepared.workload, budget=chosen)

    def interrupt(self) -> None:
        """End the running call after its current step; it returns what there is by then. For other threads."""
        cancel = self._cancel
        if cancel is not None:
            cancel.set()

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

    def _generation(self, request: ResolvedRequest, progress: Progress | None) -> Generation:
        """Prepare and plan a call. Raises `MemoryBudgetError` before anything is loaded."""
        prepared = Prepared.of(request, self.models, self.tokenizers)
        plan = make_plan(self.models, self.runners, prepared.workload, budget=self._budget)
        self._residency.make_room(plan)
        return Generation(
            models=self.models,
            runners=self.runners,
            tokenizers=self.tokenizers,
            residency=self._residency,
            plan=plan,
            prepared=prepared,
            progress=progress or Silent(),
        )

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

    def _tell(self, callback: Any, step: Step) -> object:
        return callback(self, step.index, step.timestep, {"latents": step.latents})


def _budget(value: int | str | None) -> int | None:
    return value if value is None or value == LEAST else parse_bytes(value)


def _open_tokenizer(folder: Path, manifest: Manifest, encoder: str) -> Tokenizer:
    name = tokenizer_of(encoder)
    paths = [checked_path(folder, file) for file in manifest.tokenizers[name]]
    return Tokenizer({path.name: path.read_bytes() for path in paths}, source=str(folder / name))
