"""The weights that systems are measured on: the checkpoints as they are, stressed, and with heavy tails."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pocketxl.engine.pipeline import Pipeline
from pocketxl.export.build import build
from pocketxl.export.checkpoint.open import Checkpoint, open_checkpoint
from pocketxl.export.components import Component, assemble

from ..stress import heavy_tails, stress
from .samples import Samples, record
from .torch_runner import torch_runners

TAILS = "tails"
TAILS_FACTOR = 10.0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How much is measured. `size`: pixels; `threads`: None for the libraries' own choice."""

    pictures: int = 50
    steps: int = 12
    size: int = 128
    threads: int | None = None


@dataclass(frozen=True, kw_only=True)
class Case:
    """A pair of checkpoints and what float32 makes of it."""

    name: str
    base: Path
    refiner: Path
    work: Path
    """A folder of its own, for engines."""
    pictures: bool
    """Whether its pictures mean anything."""
    settings: Settings

    def engine(self, recipe: str) -> Path:
        """The folder of the engine of that recipe, built when first asked for; see `build` for what it raises."""
        folder = self.work / recipe
        if not folder.exists():
            build(self.base, folder, refiner=self.refiner, recipe=recipe, threads=self.settings.threads)
        return folder

    def opened(self, recipe: str) -> Pipeline:
        """The engine of that recipe, ready for calls."""
        return Pipeline.load(self.engine(recipe), threads=self.settings.threads)

    @cached_property
    def fp32(self) -> Pipeline:
        """The engine in floats: whose pictures are the reference, and whose models and tokenizers all systems use."""
        return self.opened("fp32")

    @cached_property
    def components(self) -> Mapping[str, Component]:
        """What the engine's components are made from."""
        return assemble(open_checkpoint(self.base), open_checkpoint(self.refiner), _digest).components

    @cached_property
    def samples(self) -> Samples:
        """Calls of every component in a float32 run with torch."""
        return record(self.fp32, torch_runners(self.components), steps=self.settings.steps, size=self.settings.size)


def cases(
    base: Path, refiner: Path, work: Path, factors: Sequence[float], *, tails: bool, settings: Settings
) -> list[Case]:
    """A case for each factor (1: the checkpoints as they are), and one with heavy tails and outliers × 10."""
    found = []
    for factor in factors:
        name = "unstressed" if factor == 1 else f"stress_{factor:g}"
        pair = {"base": base, "refiner": refiner}
        if factor != 1:
            pair = {kind: stress(source, _new(work, name, kind), factor=factor) for kind, source in pair.items()}
        found.append(Case(name=name, **pair, work=work / name / "engines", pictures=True, settings=settings))
    if tails:
        pair = {}
        for kind, source in {"base": base, "refiner": refiner}.items():
            drawn = heavy_tails(source, _new(work, "drawn", kind))
            pair[kind] = stress(drawn, _new(work, TAILS, kind), factor=TAILS_FACTOR)
        found.append(Case(name=TAILS, **pair, work=work / TAILS / "engines", pictures=False, settings=settings))
    return found


def _new(work: Path, name: str, kind: str) -> Path:
    (work / name).mkdir(parents=True, exist_ok=True)
    return work / name / kind


def _digest(checkpoint: Checkpoint, part: str) -> str:
    return checkpoint.weights(part).digest()
