"""One short unquantized run, which does three jobs.

It shows calibration the activations, gives the parity gate its samples, and its pictures are what the finished engine
is held to.
"""

from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np

from ...engine.architecture import Models
from ...engine.folder.samples import Sample
from ...engine.pipeline import Pipeline
from ...engine.progress import Progress, track
from ...engine.runners.base import Device, Footprint, Held, HostHeld, Sizes, Value, Values
from ...engine.runners.ort import OrtDevice
from ...engine.specs import Arrays, ComponentSpec, Role, TensorSpec
from ...engine.text.tokenizer import Tokenizer
from ..components import Assembly
from ..progress import steps_of
from ..quantize.recipes import CalibrationSettings
from .calibrate import Calibration, Extremes, watch
from .calls import Calls
from .prompts import PROMPTS
from .store import Part, ReferenceStore

if TYPE_CHECKING:
    from .streamed import StreamedModule

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
    calls: Calls | None = None
    """Where its calls are kept, if they are long."""
    samples: list[Sample] = field(default_factory=list)
    rows: int = 2
    device: Device = field(default_factory=OrtDevice)
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
        outputs = self._outputs(arrays)
        every = max(1, self.expected_rows // SAMPLES)
        for sample in single_rows(self.spec, arrays, outputs):
            if self.seen % every == 0 and len(self.samples) < SAMPLES:
                self.samples.append(sample)
            self.seen += 1
        return dict(outputs)

    def _outputs(self, arrays: Arrays) -> Arrays:
        if self.calls is None:
            return self.module(arrays)
        return self.calls.recalled(self.name) or self.calls.kept(self.name, self.module(arrays))


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
    """Make `settings.prompts` pictures of `size` × `size` pixels in float32 and watch every convolution.

    Each finished picture and, of the one that is being made, each step is kept in `store`; those that are there already
    are not made again. Recipes have no say in it, so that the next one to be tried finds it done.
    """
    runners = _runners(assembly, settings)
    pipe = Pipeline(models, runners, tokenizers)
    parts = _finished(store, settings)
    with ExitStack() as stack:
        ranges = {name: stack.enter_context(watch(r.module, convolutions(r.module))) for name, r in runners.items()}
        for part in parts:
            _go_on_from(part, runners, ranges)
        left = (settings.prompts - len(parts)) * settings.steps - store.calls(len(parts))
        advance = stack.enter_context(track(progress, "reference", total=max(0, left), unit="step"))
        for index in range(len(parts), settings.prompts):
            calls = Calls(store, index, ranges, advance)
            for runner in runners.values():
                runner.calls = calls if runner.spec.role is Role.UNET else None
            before = {name: len(runner.samples) for name, runner in runners.items()}
            part = Part(
                picture=one_picture(pipe, index, settings, size, steps_of(advance, count=False)),
                samples={name: runner.samples[before[name] :] for name, runner in runners.items()},
                calibration={name: Calibration(ranges=dict(seen)) for name, seen in ranges.items()},
                rows={name: runner.seen for name, runner in runners.items()},
            )
            store.write(index, part)
            parts.append(part)
    return Reference(
        pictures=np.stack([part.picture for part in parts]),
        samples={name: runner.samples for name, runner in runners.items()},
        calibration=parts[-1].calibration,
    )


def sample_of(reference: Reference, component: str) -> Sample:
    """The call that an engine carries of a component: its first.

    A U-Net's keys and values are left out where they are the outputs of the conditioner's first call.
    """
    inputs, outputs = reference.samples[component][0]
    conditioner = component.replace("/unet", "/conditioner")
    if conditioner != component:
        known = reference.samples[conditioner][0][1]
        inputs = {n: a for n, a in inputs.items() if n not in known or not np.array_equal(a, known[n])}
    return inputs, outputs


def one_picture(pipe: Pipeline, index: int, settings: CalibrationSettings, size: int, progress: Progress) -> np.ndarray:
    """Picture `index`, (H, W, 3) in [0, 1], from the prompt and the noise that reference and engine have in common."""
    options: dict[str, Any] = {"num_inference_steps": settings.steps, "width": size, "height": size}
    prompt = PROMPTS[index % len(PROMPTS)]
    picture: np.ndarray = pipe(prompt, seed=index, output_type="np", progress=progress, **options).images[0]
    return picture


def _runners(assembly: Assembly, settings: CalibrationSettings) -> dict[str, ReferenceRunner]:
    from .streamed import StreamedModule

    evaluations = 2 * settings.steps * settings.prompts  # with guidance
    return {
        name: ReferenceRunner(
            name=name,
            spec=component.spec,
            module=StreamedModule(component.module, component.spec, component.weights),
            expected_rows=evaluations if component.spec.role is Role.UNET else 1,
        )
        for name, component in assembly.components.items()
    }


def _go_on_from(part: Part, runners: Mapping[str, ReferenceRunner], ranges: Mapping[str, dict[str, Extremes]]) -> None:
    """Bring runners and ranges to where they were when `part` was done."""
    for name, runner in runners.items():
        runner.samples += part.samples[name]
        runner.seen = part.rows[name]
    for name, seen in ranges.items():
        seen.update(part.calibration[name].ranges)


def convolutions(module: "StreamedModule") -> list[str]:
    """The layers that a recipe may want to know the activation ranges of."""
    from torch import nn

    return [name for name, layer in module.module.named_modules() if isinstance(layer, nn.Conv2d)]


def _finished(store: ReferenceStore, settings: CalibrationSettings) -> list[Part]:
    """The pictures that are there already, up to the first that is not."""
    return list(takewhile(lambda part: part is not None, map(store.read, range(settings.prompts))))  # type: ignore[arg-type]
