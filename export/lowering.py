"""One component of an engine: smoothed, its numbers chosen, lowered and measured; again with more bits while it misses.

The parts of a checkpoint that two components share (a U-Net and its conditioner) are smoothed together, when the first
of the two is made.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..engine.architecture import UNetArchitecture
from ..engine.folder.samples import Sample
from .components import Component
from .job import Job, possible_recipes
from .keep import layers_of
from .progress import Counted
from .quantize.calibration import Calibration
from .quantize.choose import Layer, Measured, choose, measure_layers
from .quantize.formats import KEEP, Format
from .quantize.quantization import Quantization
from .quantize.rounded import Floats
from .quantize.smoothing import Smoothed, Smoothing, find_smoothing
from .reference import measure
from .reference.gate import gate
from .reference.rescaled import key_value_factors, rescaled
from .reference.run import Reference
from .target import FACTS, Lowered

_ATTEMPTS = 4
"""Of lowering a component. What was measured corrects the estimate of the next; the last gives all that there is."""
_LEAST = 0.25
"""What is measured, relative to its estimate, before anything is: components were 0.25 to 1 of it."""
_STEP = 1.1
_NAMED = 5
"""Layers in an error."""


class Lowering:
    """What the components of one build have in common."""

    def __init__(self, job: Job, reference: Callable[[], Reference], threads: int | None) -> None:
        """`reference` is asked when it is needed first."""
        self._job = job
        self._reference = reference
        self._threads = threads
        self._smoothing = cache(self._find_smoothing)

    def lower(self, component: Component, advance: Callable[..., None], folder: Path, *, aside: Path) -> dict[str, Any]:
        """Write one component into `folder`; what the manifest will say of it. `advance`: bytes read, and a detail.

        Raises `QualityError` if it misses the recipe's goal although its layers have all the bits that they may have.
        """
        recipe, role = self._job.recipes[component.name], component.spec.role
        measured, seen = self.measured(component)
        goal, correction = recipe.max_relative_error[role], _LEAST
        share = self._job.target.reading
        counted = Counted(component.weights, advance, share=share)  # once, however often it is lowered

        def tell(text: str) -> None:
            advance(0, detail=f"{component.name}: {text}")

        for last in (*[False] * (_ATTEMPTS - 1), True):
            numbers = choose(measured, recipe, role, seen, goal=0.0 if last else goal / correction)
            with TemporaryDirectory(dir=aside) as beside:
                made = self._lowered(component, numbers, counted, folder, Path(beside), tell)
                where = folder if made.stand_in is None else made.stand_in.parent
                figures = measure.figures_of(where, component, made, self.samples(component), threads=self._threads)
            if figures.relative_error <= goal or measured.exhausted(numbers):
                break
            correction = max(_STEP * correction, figures.relative_error / measured.estimate(numbers))
        counted.finish()
        worst = measured.errors(numbers)[:_NAMED]
        gate(component.name, role, recipe, figures, others=possible_recipes(self._job), worst=worst)
        facts: dict[str, Any] = {name: getattr(made, name) for name in FACTS}
        return {
            **facts,
            "quality": figures.to_json(),
            "formats": self._formats(component, numbers),
            "more_bits": measured.more_bits(numbers),
        }

    def weights(self, component: Component) -> Smoothed:
        """Its weights behind smoothing."""
        return Smoothed(component.weights, self._smoothing(component.source))

    def samples(self, component: Component) -> list[Sample]:
        """Those of the reference, as the smoothed network would have given them."""
        samples = self._reference().samples[component.name]
        if not isinstance(component.configuration, UNetArchitecture):
            return list(samples)
        return rescaled(samples, key_value_factors(component.configuration, self._smoothing(component.source)))

    def _lowered(
        self,
        component: Component,
        numbers: Quantization,
        counted: Counted,
        folder: Path,
        beside: Path,
        tell: Callable[[str], None],
    ) -> Lowered:
        import torch

        from .graph.master import export_master

        for old in folder.iterdir():  # of an attempt before
            old.unlink()
        target = self._job.target
        dtype = getattr(torch, target.dtype)
        master = export_master(component.name, component.module, component.spec, dtype=dtype)
        weights = Smoothed(counted, self._smoothing(component.source))
        return target.lower(component.name, component.spec, master, weights, numbers, folder, beside, tell)

    def measured(self, component: Component) -> tuple[Measured, Calibration]:
        """What its layers lose in each format, and what they have shown, both behind smoothing."""
        recipe, role, target = self._job.recipes[component.name], component.spec.role, self._job.target
        if not recipe.quantizes(role):
            return Measured(options={}, ranges={}), Calibration()
        smoothing = self._smoothing(component.source)
        raw = self._reference().calibration[component.name]
        seen = Calibration(
            layers={name: smoothing.statistics(name, layer) for name, layer in raw.layers.items()}, streams=raw.streams
        )
        weights = self.weights(component)
        layers = [
            Layer(name=name, kind=kind, shape=component.weights.shape(f"{name}.weight"))
            for name, kind in layers_of(component).items()
        ]

        def read(name: str) -> Floats | None:
            if name not in component.weights:
                return None
            found: Floats = weights.tensor(name).float().numpy()
            return found

        return measure_layers(layers, recipe, role, read, seen, target), seen

    def _find_smoothing(self, source: str) -> Smoothing:
        related = [c for c in self._job.assembly.components.values() if c.source == source]
        recipes = {c.name: self._job.recipes[c.name] for c in related}
        if not any(recipes[c.name].quantizes(c.spec.role) for c in related):
            return Smoothing()
        formats: dict[str, Format] = {}
        for component in related:
            for name, kind in layers_of(component).items():
                formats[name] = recipes[component.name].format(component.spec.role, kind, name)
        seen = Calibration.over(self._reference().calibration[c.name] for c in related)
        return find_smoothing(related[0].part, seen, lambda name: formats.get(name, KEEP))

    def _formats(self, component: Component, numbers: Quantization) -> dict[str, tuple[str, ...]]:
        """Format → the layers that have it, sorted."""
        found: dict[str, list[str]] = {}
        for name, kind in layers_of(component).items():
            found.setdefault(str(numbers.format(kind, name)), []).append(name)
        return {format: tuple(sorted(names)) for format, names in sorted(found.items())}
