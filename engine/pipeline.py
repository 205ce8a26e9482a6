"""From prompt to picture: load an engine once, call it for pictures.

pipe = Pipeline.load()                      # the bundled miniature, or a folder that `pocketxl build` made
picture = pipe("a red apple", seed=7).images[0]
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .callbacks import replacement
from .errors import RequestError
from .folder.manifest import Manifest, checked_path, read_manifest
from .generation import Generation
from .memory.plan import LEAST, MemoryPlan, make_plan
from .memory.residency import Residency
from .memory.sizes import parse_bytes
from .miniature import engine_folder
from .progress import Progress, Silent
from .request.request import GenerationRequest, ValidRequest
from .request.validation import validate
from .runners import open_runners
from .runners.base import Runner
from .sampling.denoise import Step
from .sampling.samplers.base import Array
from .text.tokenizer import Tokenizer, tokenizer_of


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
        self.models = manifest.models
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
        tokenizers = {encoder: _open_tokenizer(folder, manifest, encoder) for encoder in manifest.models.text_encoders}
        runners = open_runners(folder, manifest, threads=threads)
        return cls(manifest, runners, tokenizers, memory_budget=budget, name=folder.resolve().name)

    def __call__(self, prompt: str | Sequence[str] = "", *, progress: Progress | None = None, **options: Any) -> Output:
        """Make pictures. `options` are diffusers' SDXL keywords and defaults; see `GenerationRequest` for all of them.

        Every argument is checked before anything is loaded. Raises `RequestError` (an argument), `MemoryBudgetError`,
        `NumericError` (NaN or Inf: never a black picture) and `IntegrityError` (a damaged file).
        """
        request = validate(
            GenerationRequest.of({"prompt": prompt, **options}),
            native_size=self.manifest.models.native_size,
            has_refiner="refiner" in self.manifest.models.denoisers,
            latent_channels=self.manifest.models.vae.latent_channels,
            downscale=self.manifest.models.vae.downscale,
        )
        with self._exclusive():
            self._interrupted.clear()
            images = Generation(
                manifest=self.manifest,
                runners=self.runners,
                tokenizers=self._tokenizers,
                residency=self._residency,
                budget=self._budget,
                request=request,
                progress=progress or Silent(),
                on_step=partial(self._on_step, request),
                interrupted=self._interrupted.is_set,
            ).run()
        return Output(images=images, seeds=request.seeds, request=request)

    def plan(self, *, width: int | None = None, height: int | None = None, **options: Any) -> MemoryPlan:
        """What would be in memory when, and the predicted peak, without loading anything; see `make_plan`."""
        native = self.manifest.models.native_size
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

    def _on_step(self, request: ValidRequest, before: int, step: Step) -> Array | None:
        callback = request.callback_on_step_end
        if callback is None:
            return None
        return replacement(callback(self, before + step.index, step.timestep, {"latents": step.latents}))


def _open_tokenizer(folder: Path, manifest: Manifest, encoder: str) -> Tokenizer:
    name = tokenizer_of(encoder)
    paths = [checked_path(folder, file) for file in manifest.tokenizers[name]]
    return Tokenizer({path.name: path.read_bytes() for path in paths}, source=str(folder / name))
