"""One component of an engine: smoothed, its numbers chosen, lowered and measured; again with more bits while it misses.

The parts of a checkpoint that two components share (a U-Net and its conditioner) are smoothed together, when the first
of the two is made. Behind smoothing, a VAE that a target computes in half precision is brought into its range.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..engine.adapters.factors import FACTORS_FILE, encode_factors
from ..engine.architecture import UNetArchitecture
from ..engine.folder.durable import write_durably
from ..engine.folder.samples import Sample
from ..engine.specs import Role
from .components import Component
from .job import Job, possible_recipes
from .job_keys import reference_key
from .keep import heads_of, layers_of
from .progress import Counted
from .publish.keys import digest_of
from .quantize.calibration import Calibration, LayerStatistics
from .quantize.choose import Layer, Measured, choose, measure_layers
from .quantize.formats import KEEP, Format, Kind
from .quantize.half_places import find_places
from .quantize.half_range import HalfRange, find_exponents, largest_outputs, scaled_places
from .quantize.pair_factors import pair_factors
from .quantize.quantization import Quantization
from .quantize.rounded import Floats
from .quantize.smoothing import Smoothed, Smoothing, Source, find_smoothing
from .reference import measure
from .reference.gate import check_range, gate
from .reference.rescaled import key_value_factors, rescaled
from .reference.run import Reference
from .reference.store import ReferenceStore
from .target import FACTS, Lowered

_ATTEMPTS = 4
"""Of lowering a component. What was measured corrects the estimate of the next; the last gives all that there is."""
_LEAST = 0.25
"""What is measured, relative to its estimate, before anything is: components were 0.25 to 1 of it."""
_STEP = 1.1
_TIGHTER = 0.6
"""Of a component's error, where all components reached their goals and the pictures did not: 4.4 dB."""
_NAMED = 5
"""Layers in an error."""
_IN_HALF_RANGE = (Role.VAE_DECODER, Role.VAE_ENCODER)


class Lowering:
    """What the components of one build have in common."""

    def __init__(self, job: Job, reference: Callable[[], Reference], threads: int | None, kept: Path) -> None:
        """`reference` is asked when it is needed first. `kept`: a folder for what a build that goes on asks again."""
        self._job = job
        self._reference = reference
        self._threads = threads
        self._kept = kept
        self._goals: dict[str, float] = {}
        self._smoothing = cache(self._find_smoothing)
        self._half_range = cache(self._find_half_range)

    def tighten(self, component: Component, facts: Mapping[str, Any]) -> bool:
        """Aim at less error than `lower` told of this component, for pictures that are too far off.

        False if no layer of it may have more bits. What fails a build stays as it is.
        """
        recipe = self._job.recipes[component.name]
        self._goals[component.name] = _TIGHTER * float(facts["quality"]["relative_error"])
        return bool(recipe.ladder) and recipe.quantizes(component.spec.role)

    def lower(self, component: Component, advance: Callable[..., None], folder: Path, *, aside: Path) -> dict[str, Any]:
        """Write one component into `folder`; what the manifest will say of it. `advance`: bytes read, and a detail.

        Raises `QualityError` if it misses the recipe's goal although its layers have all the bits that they may have,
        and if it goes beyond the range of the target's floats.
        """
        recipe, role = self._job.recipes[component.name], component.spec.role
        target = self._job.target.of(role)
        if target.dtype == "float16":
            check_range(component.name, self._shown(component))
        # The rest of the ladder is measured when it is needed, which costs time for every layer.
        ladder = role in recipe.bits
        measured, seen = self.measured(component, ladder=ladder)
        goal, correction = self._goal(component), _LEAST
        share = target.reading
        counted = Counted(component.weights, advance, share=share)  # once, however often it is lowered

        def tell(text: str) -> None:
            advance(0, detail=f"{component.name}: {text}")

        for last in (*[False] * (_ATTEMPTS - 1), True):
            numbers = choose(measured, recipe, role, seen, goal=0.0 if last else goal / correction)
            with TemporaryDirectory(dir=aside) as beside:
                made = self._lowered(component, numbers, counted, folder, Path(beside), tell)
                where, kind = folder, made.runner or target.runner
                if made.stand_in is not None:
                    where, kind = made.stand_in.parent, "ort"
                samples = self.samples(component)
                figures = measure.figures_of(where, component, made, samples, kind=kind, threads=self._threads)
            if figures.relative_error <= goal:
                break
            if not ladder:
                ladder, (measured, seen) = True, self.measured(component)
            if measured.exhausted(numbers):
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
            "halvings": dict(self._half_range(component.name).exponents),
        }

    def _goal(self, component: Component) -> float:
        goal = self._job.recipes[component.name].max_relative_error[component.spec.role]
        return min(goal, self._goals.get(component.name, goal))

    def weights(self, component: Component, source: Source | None = None) -> Smoothed:
        """Its weights (None: read anew) behind smoothing, and in half's range."""
        smoothed = Smoothed(source or component.weights, self._smoothing(component.source))
        return Smoothed(smoothed, self._half_range(component.name).smoothing)

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
        target = self._job.target.of(component.spec.role)
        dtype = getattr(torch, target.dtype)
        half_range = self._half_range(component.name)
        master = export_master(
            component.name, lambda: half_range.applied(component.module()), component.spec, dtype=dtype
        )
        weights = self.weights(component, counted)
        made = target.lower(component.name, component.spec, master, weights, numbers, folder, beside, tell)
        return self._with_factors(component, made, folder)

    def _with_factors(self, component: Component, made: Lowered, folder: Path) -> Lowered:
        """Write beside open graphs what makes pairs fit the smoothed layers."""
        openings = made.openings
        if openings is None:
            return made
        layers = openings.shapes(tuple(openings.layers))
        factors = pair_factors(layers, self._smoothing(component.source), component.weights)
        if not factors:
            return made
        write_durably(folder / FACTORS_FILE, encode_factors(factors))
        return replace(made, openings=replace(openings, factors=FACTORS_FILE))

    def measured(self, component: Component, *, ladder: bool = True) -> tuple[Measured, Calibration]:
        """What its layers lose in each format, and what they have shown, both of the weights as `weights` has them.

        Without `ladder`: see `measure_layers`.
        """
        recipe, role = self._job.recipes[component.name], component.spec.role
        target = self._job.target.of(role)
        if not recipe.quantizes(role):
            return Measured(options={}, ranges={}), Calibration()
        seen, weights = self._shown(component), self.weights(component)
        heads = heads_of(component)
        layers = [
            Layer(name=name, kind=kind, shape=component.weights.shape(f"{name}.weight"))
            for name, kind in layers_of(component).items()
            if kind is not Kind.ATTENTION
        ]
        layers += [Layer(name=name, kind=Kind.ATTENTION, shape=(count,)) for name, count in heads.items()]

        def read(name: str) -> Floats | None:
            if name not in component.weights:
                return None
            found: Floats = weights.tensor(name).float().numpy()
            return found

        return measure_layers(layers, recipe, role, read, seen, target, ladder=ladder), seen

    def _shown(self, component: Component) -> Calibration:
        """What they would have shown with `weights`."""
        return _behind(self._half_range(component.name).smoothing, self._smoothed(component))

    def _smoothed(self, component: Component) -> Calibration:
        """What its layers have shown, behind smoothing."""
        return _behind(self._smoothing(component.source), self._reference().calibration[component.name])

    def _find_half_range(self, name: str) -> HalfRange:
        component = self._job.assembly.components[name]
        role = component.spec.role
        if self._job.target.of(role).dtype != "float16" or role not in _IN_HALF_RANGE:
            return HalfRange()
        shapes = {parameter: component.weights.shape(parameter) for parameter in component.weights}
        return scaled_places(find_exponents(find_places(shapes), largest_outputs(self._smoothed(component))), shapes)

    def _find_smoothing(self, source: str) -> Smoothing:
        related = [c for c in self._job.assembly.components.values() if c.source == source]
        recipes = {c.name: self._job.recipes[c.name] for c in related}
        if not any(recipes[c.name].quantizes(c.spec.role) for c in related):
            return Smoothing()
        formats: dict[str, Format] = {}
        for component in related:
            for name, kind in layers_of(component).items():
                formats[name] = recipes[component.name].format(component.spec.role, kind, name)
        key = digest_of([reference_key(self._job), {name: str(format) for name, format in formats.items()}])
        store = ReferenceStore(self._kept / source, key)
        kept = store.read_arrays("factors")
        if kept is not None:  # a full-size U-Net's takes minutes
            return Smoothing(rows=kept.get("rows", {}), columns=kept.get("columns", {}))
        seen = Calibration.over(self._reference().calibration[c.name] for c in related)
        found = find_smoothing(related[0].part, seen, lambda name: formats.get(name, KEEP))
        store.write_arrays("factors", rows=found.rows, columns=found.columns)
        return found

    def _formats(self, component: Component, numbers: Quantization) -> dict[str, tuple[str, ...]]:
        """Format → the layers that have it, sorted."""
        found: dict[str, list[str]] = {}
        for name, kind in layers_of(component).items():
            if kind is not Kind.ATTENTION or name in numbers.attentions:  # in floats it has no numbers of its own
                found.setdefault(str(numbers.format(kind, name)), []).append(name)
        return {format: tuple(sorted(names)) for format, names in sorted(found.items())}


def _behind(smoothing: Smoothing, seen: Calibration) -> Calibration:
    """What layers would have shown in the smoothed network."""
    return Calibration(layers=_Behind(smoothing, seen.layers), streams=seen.streams)


class _Behind(Mapping[str, LayerStatistics]):
    """Statistics behind smoothing, made when they are asked for: all at once, a full-size U-Net's take a gigabyte."""

    def __init__(self, smoothing: Smoothing, layers: Mapping[str, LayerStatistics]) -> None:
        self._smoothing, self._layers = smoothing, layers

    def __getitem__(self, name: str) -> LayerStatistics:
        return self._smoothing.statistics(name, self._layers[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)
