"""One short unquantized run does three jobs: it shows calibration the activations, it gives the parity gate its
samples, and its pictures are what the finished engine is held to."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ...engine.folder.manifest import ActivationModel, ComponentEntry, Manifest
from ...engine.pipeline import Pipeline
from ...engine.progress import Progress
from ...engine.runners.base import Arrays
from ...engine.specs import ComponentSpec, Role
from ...engine.text.tokenizer import Tokenizer
from ..components import Assembly, Component
from ..quantize.formats import Kind
from ..quantize.recipes import CalibrationSettings, Recipe
from .calibrate import Calibration, watch

if TYPE_CHECKING:
    from .streamed import StreamedModule

# Short, varied, and within what any model of the family was trained on: one object, a scene, a face, fine texture.
PROMPTS = (
    "a red apple on a blue background",
    "a robot to the left of a tree on a green background",
    "a portrait of a smiling woman with a flower, detailed photograph",
    "a castle on a hill at sunset, oil painting",
)
SAMPLES = 4
"""Calls of a component that the gate compares, spread evenly over the run."""
Sample = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What the run left: pictures (n, H, W, 3) in [0, 1], and per component its samples and calibration."""

    pictures: np.ndarray
    samples: Mapping[str, list[Sample]]
    calibration: Mapping[str, Calibration]


@dataclass(kw_only=True)
class ReferenceRunner:
    """The unquantized module as a runner of the pipeline; keeps some of its calls."""

    name: str
    spec: ComponentSpec
    module: "StreamedModule"
    expected_calls: int
    samples: list[Sample] = field(default_factory=list)
    weight_bytes: int = 0
    loaded: bool = True
    calls: int = 0

    def load(self) -> None:
        """Nothing to load: weights are read as layers run."""

    def release(self) -> None:
        """Nothing to release."""

    def __call__(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Run once."""
        outputs = self.module(inputs)
        if self.calls % max(1, self.expected_calls // SAMPLES) == 0 and len(self.samples) < SAMPLES:
            self.samples.append((dict(inputs), dict(outputs)))
        self.calls += 1
        return outputs


def run_reference(
    manifest: Manifest,
    tokenizers: Mapping[str, Tokenizer],
    assembly: Assembly,
    recipe: Recipe,
    size: int,
    progress: Progress,
) -> Reference:
    """Make `recipe.calibration.prompts` pictures of `size` × `size` pixels in float32 and watch."""
    from .streamed import StreamedModule

    settings = recipe.calibration
    evaluations = 2 * settings.steps * settings.prompts  # with guidance
    runners = {
        name: ReferenceRunner(
            name=name,
            spec=component.spec,
            module=StreamedModule(component.module, component.spec, component.weights),
            expected_calls=evaluations if component.spec.role is Role.UNET else 1,
        )
        for name, component in assembly.components.items()
    }
    with ExitStack() as stack:
        ranges = {
            name: stack.enter_context(watch(runner.module, static_layers(recipe, runner.spec.role, runner.module)))
            for name, runner in runners.items()
            if recipe.needs_calibration(runner.spec.role)
        }
        pictures = short_run(Pipeline(manifest, runners, tokenizers), settings, size, progress)
        calibration = {name: Calibration(ranges=dict(seen)) for name, seen in ranges.items()}
    return Reference(pictures=pictures, samples={n: r.samples for n, r in runners.items()}, calibration=calibration)


def short_run(pipe: Pipeline, settings: CalibrationSettings, size: int, progress: Progress) -> np.ndarray:
    """The run that reference and engine have in common: same prompts, same noise; pictures (n, H, W, 3) in [0, 1]."""
    options: dict[str, Any] = {"num_inference_steps": settings.steps, "width": size, "height": size}
    pictures = [
        pipe(PROMPTS[i % len(PROMPTS)], seed=i, output_type="np", progress=progress, **options).images[0]
        for i in range(settings.prompts)
    ]
    return np.stack(pictures)


def static_layers(recipe: Recipe, role: Role, module: "StreamedModule") -> list[str]:
    """The convolutions whose activation ranges the recipe needs."""
    from torch import nn

    return [
        name
        for name, layer in module.module.named_modules()
        if isinstance(layer, nn.Conv2d) and recipe.format(role, Kind.CONV, name).static
    ]


def skeleton(component: Component) -> ComponentEntry:
    """A manifest entry for a component that has no files yet."""
    return ComponentEntry(
        spec=component.spec, runner="", files=(), weight_bytes=0, activation=ActivationModel(terms={"1": 0.0})
    )
