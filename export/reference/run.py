"""One short unquantized run, which does three jobs.

It shows calibration the activations, gives the parity gate its samples, and its pictures are what the finished engine
is held to.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from ...engine.architecture import Models
from ...engine.folder.samples import Sample
from ...engine.pipeline import Pipeline
from ...engine.preparation import Prepared
from ...engine.progress import Progress, track
from ...engine.request.resolve import resolve
from ...engine.runners.base import Device, Footprint, Held, HostHeld, Range, Sizes, Value, Values
from ...engine.runners.ort import OrtDevice
from ...engine.specs import Arrays, ComponentSpec, Role, TensorSpec
from ...engine.text.tokenizer import Tokenizer
from ..components import Assembly, Component
from ..progress import steps_of
from ..quantize.calibration import Calibration
from ..quantize.recipes import CalibrationSettings
from .calibrate import ROWS, Watch, watch
from .calls import Calls
from .painted import painted_into
from .prompts import PROMPTS
from .steered import Steered, name_in_run, steered
from .store import Part, ReferenceStore
from .stored import stored_calibration, stored_samples
from .watched import Run, watched_runs

if TYPE_CHECKING:
    from .streamed import StreamedModule

ENCODER = "vae_encoder"
SAMPLES = 4
"""Rows of a component that the gate compares, spread evenly over the run."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What the run left: pictures (n, H, W, 3) in [0, 1], and per component its samples and calibration."""

    pictures: np.ndarray
    samples: Mapping[str, list[Sample]]
    calibration: Mapping[str, Calibration]


@dataclass(kw_only=True)
class ReferenceRunner:
    """The unquantized module as a runner of the pipeline; keeps some of the rows that it is called with."""

    name: str
    spec: ComponentSpec
    module: "StreamedModule"
    expected_rows: int
    watch: Watch | None
    """None: nothing of it is kept."""
    calls: Calls | None = None
    """Where its calls are kept, if they are long."""
    shown: list[Calibration] = field(default_factory=list)
    """What its layers showed in calls that are over, until it is taken."""
    samples: list[Sample] = field(default_factory=list)
    """Those that were not taken yet."""
    taken: int = 0
    rows: int = 2
    device: Device = field(default_factory=OrtDevice)
    ranges: Mapping[str, Range] = field(default_factory=dict)
    loaded: bool = True
    seen: int = 0
    """Rows so far."""

    def footprint(self, sizes: Sizes) -> Footprint:
        """Nothing: without a budget a plan decides nothing."""
        return Footprint(pool="host", weights=0, working=0)

    def hold(self, inputs: Values) -> Held:
        """The arrays themselves."""
        return HostHeld({name: np.asarray(value) for name, value in inputs.items()})

    def load(self) -> None:
        """Nothing to load: weights are read as layers run."""

    def release(self) -> None:
        """Nothing to release."""

    def leave_behind(self) -> None:
        """Nothing is loaded."""

    def __call__(self, inputs: Values, held: Held | None = None, *, keep: Collection[str] = ()) -> dict[str, Value]:
        """Run once, with any number of rows."""
        arrays = {name: np.asarray(value) for name, value in inputs.items()}
        if isinstance(held, HostHeld):
            arrays |= held.inputs
        if self.watch is None:
            return dict(self.module(arrays))
        outputs = self._outputs(arrays, self.watch)
        every = max(1, self.expected_rows // SAMPLES)
        for sample in single_rows(self.spec, arrays, outputs):
            if self.seen % every == 0 and self.taken + len(self.samples) < SAMPLES:
                self.samples.append(sample)
            self.seen += 1
        return dict(outputs)

    def _outputs(self, arrays: Arrays, watch: Watch) -> Arrays:
        kept = None if self.calls is None else self.calls.recalled(self.name)
        if kept is not None:
            self.shown.append(kept.calibration)
            return kept.outputs
        watch.before = self.seen
        outputs = self.module(arrays)
        self.shown.append(watch.take())
        if self.calls is not None:
            self.calls.kept(self.name, outputs, self.shown[-1])
        return outputs

    def take(self) -> Calibration:
        """What its layers have shown since this was last called."""
        seen = Calibration.over(self.shown)
        self.shown = []
        return seen

    def take_samples(self) -> list[Sample]:
        """The samples that it has kept since this was last called."""
        found, self.samples = self.samples, []
        self.taken += len(found)
        return found


def single_rows(spec: ComponentSpec, inputs: Arrays, outputs: Arrays) -> list[Sample]:
    """A call as calls of one row each.

    int8 engines take their dynamic ranges from all rows together, so that rows of a larger call are not what the gate
    may compare with single ones.
    """
    batch = "batch"
    count = next(inputs[t.name].shape[t.shape.index(batch)] for t in spec.inputs if batch in t.shape)

    def row(tensors: tuple[TensorSpec, ...], arrays: Arrays, i: int) -> dict[str, np.ndarray]:
        return {
            t.name: arrays[t.name].take([i], t.shape.index(batch)) if batch in t.shape else arrays[t.name]
            for t in tensors
        }

    return [(row(spec.inputs, inputs, i), row(spec.outputs, outputs, i)) for i in range(count)]


def run_reference(
    models: Models,
    tokenizers: Mapping[str, Tokenizer],
    assembly: Assembly,
    settings: CalibrationSettings,
    size: int,
    store: ReferenceStore,
    progress: Progress,
) -> Reference:
    """Make `settings.prompts` pictures of `size` × `size` pixels in float32, and some more, and watch every layer.

    The VAE's encoder, which a picture out of a prompt does not need, is shown the pictures that came out.

    Each finished picture and, of the one that is being made, each step is kept in `store`; those that are there already
    are not made again. Recipes have no say in it, so that the next one to be tried finds it done.
    """
    evaluations = _evaluations(models, tokenizers, settings, size)
    pictures: list[np.ndarray] = []
    with ExitStack() as stack:
        runners = {
            name: _runner(name_in_run(assembly.companion, name), component, evaluations, settings, stack)
            for name, component in assembly.components.items()
            if component.spec.role is not Role.TINY_DECODER  # see `reference.tiny`
        }
        beside = {name: _unwatched(component) for name, component in assembly.beside.items()}
        pipe = steered(assembly.companion, models, runners, beside, tokenizers)
        for part in _finished(store):
            pictures.append(part.picture)
            for name, runner in runners.items():
                runner.taken += len(part.samples[name])
                runner.seen = part.rows[name]
        runs: list[Run] = [partial(one_picture, pipe, i, settings, size) for i in range(settings.prompts)]
        runs += watched_runs(pipe, settings, size) if settings.watched else []
        steps = [settings.steps] * settings.prompts + [settings.watched] * (len(runs) - settings.prompts)
        left = sum(steps[len(pictures) :]) - store.calls(len(pictures))
        advance = stack.enter_context(track(progress, "reference", total=max(0, left), unit="step"))
        for index in range(len(pictures), len(runs)):
            calls = Calls(store, index, advance)
            for runner in runners.values():
                runner.calls = calls if runner.spec.role is Role.UNET else None
            picture = runs[index](steps_of(advance, count=False))
            if ENCODER in runners:
                runners[ENCODER]({"image": (2 * picture - 1).transpose(2, 0, 1)[None]})
            part = Part(
                picture=picture,
                samples={name: runner.take_samples() for name, runner in runners.items()},
                calibration={name: runner.take() for name, runner in runners.items()},
                rows={name: runner.seen for name, runner in runners.items()},
            )
            store.write(index, part)
            pictures.append(picture)
    return Reference(
        pictures=np.stack(pictures[: settings.prompts]),
        samples=stored_samples(store, len(pictures), tuple(runners)),
        calibration=stored_calibration(store, len(pictures), tuple(runners)),
    )


def sample_of(samples: Mapping[str, Sequence[Sample]], component: str) -> Sample:
    """The call that an engine carries of a component: its first.

    A U-Net's keys and values are left out where they are the outputs of the conditioner's first call.
    """
    inputs, outputs = samples[component][0]
    conditioner = component.replace("/unet", "/conditioner")
    if conditioner != component:
        known = samples[conditioner][0][1]
        inputs = {n: a for n, a in inputs.items() if n not in known or not np.array_equal(a, known[n])}
    return inputs, outputs


def one_picture(
    pipe: Pipeline | Steered, index: int, settings: CalibrationSettings, size: int, progress: Progress
) -> np.ndarray:
    """Picture `index`, (H, W, 3) in [0, 1], from the prompt and the noise that reference and engine have in common."""
    options: dict[str, Any] = {"num_inference_steps": settings.steps, "width": size, "height": size}
    options |= painted_into(pipe.models, index, size)
    prompt = PROMPTS[index % len(PROMPTS)]
    picture: np.ndarray = pipe(prompt, seed=index, output_type="np", progress=progress, **options).images[0]
    return picture


def _evaluations(
    models: Models, tokenizers: Mapping[str, Tokenizer], settings: CalibrationSettings, size: int
) -> dict[str, int]:
    """Model → how often its U-Net is asked in one picture."""
    options: dict[str, Any] = {"num_inference_steps": settings.steps, "width": size, "height": size}
    options |= painted_into(models, 0, size)
    prepared = Prepared.of(resolve({"prompt": PROMPTS[0], **options}, models), models, tokenizers)
    return {kind: len(part.evaluations) for kind, part in prepared.parts.items()}


def _runner(
    called: str, component: Component, evaluations: Mapping[str, int], settings: CalibrationSettings, stack: ExitStack
) -> ReferenceRunner:
    from .streamed import StreamedModule

    module = StreamedModule(component.module, component.spec, component.weights)
    of_unet = component.spec.role is Role.UNET
    calls = settings.prompts * (evaluations.get(component.name.split("/")[0], 1) if of_unet else 1)
    watched = calls + 2 * max(settings.watched, 1)
    return ReferenceRunner(
        name=called,
        spec=component.spec,
        module=module,
        expected_rows=2 * calls if of_unet else 1,  # with guidance
        watch=stack.enter_context(watch(module, -(-ROWS // watched))),
    )


def _unwatched(component: Component) -> ReferenceRunner:
    """A component that takes part and is not built."""
    from .streamed import StreamedModule

    module = StreamedModule(component.module, component.spec, component.weights)
    return ReferenceRunner(name=component.name, spec=component.spec, module=module, expected_rows=1, watch=None)


def _finished(store: ReferenceStore) -> Iterator[Part]:
    """The pictures that are there already, up to the first that is not."""
    for index in count():
        if (part := store.read(index)) is None:
            return
        yield part
