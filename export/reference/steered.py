"""The reference run of a ControlNet: pictures of the base that it is used with, steered by hints of several kinds."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ...engine.architecture import Models
from ...engine.companion import Companion
from ...engine.control.beside import Beside
from ...engine.control.network import ControlNet
from ...engine.memory.controls import part
from ...engine.output import Output
from ...engine.pipeline import Pipeline
from ...engine.request.control_modes import NUMBERS
from ...engine.runners.base import Runner
from ...engine.text.tokenizer import Tokenizer

Hint = npt.NDArray[np.uint8]
NAME = "built"
_LINES = 12


class Steered:
    """A pipeline whose pictures are steered by one hint after another."""

    def __init__(self, pipe: Pipeline, kinds: int = 0) -> None:
        """`kinds`: of hints that the ControlNet tells apart, if it is a union."""
        self._pipe, self._kinds = pipe, kinds

    @property
    def models(self) -> Models:
        """The pipeline's."""
        return self._pipe.models

    def __call__(self, prompt: str, *, width: int, height: int, seed: int, **options: Any) -> Output:
        """As the pipeline's; the hint follows from the seed, so that a build that goes on has the same."""
        hint = HINTS[seed % len(HINTS)](height, width)
        if self._kinds:
            options["control_mode"] = _MODES[seed % len(HINTS)] % self._kinds
        return self._pipe(prompt, width=width, height=height, seed=seed, control_image=hint, **options)


def steered(
    companion: Companion | None,
    models: Models,
    runners: Mapping[str, Runner],
    beside: Mapping[str, Runner],
    tokenizers: Mapping[str, Tokenizer],
) -> Pipeline | Steered:
    """What makes the reference's pictures: of an engine a pipeline as it is, of a ControlNet one that it steers.

    `beside`: the runners of the base that a ControlNet is used with.
    """
    if companion is None or companion.controlnet is None:
        return Pipeline(models, runners, tokenizers)
    renamed = {name_in_run(companion, place): runner for place, runner in runners.items()}
    controlnet = ControlNet(name=NAME, architecture=companion.controlnet, runners=renamed)
    pipe = Pipeline(models, beside, tokenizers, beside=Beside(controlnets={NAME: controlnet}))
    return Steered(pipe, companion.controlnet.control_types)


def name_in_run(companion: Companion | None, place: str) -> str:
    """What a component that is built is called among the run's: its place in the folder, in that of an engine."""
    return place if companion is None else part(NAME, place.rpartition("/")[2])


def edges(height: int, width: int) -> Hint:
    """Thin white lines on black, as of edge and line detectors."""
    random = np.random.default_rng(1)
    picture = np.zeros((height, width, 3), np.uint8)
    down, across = np.mgrid[:height, :width] / max(height, width)
    for _ in range(_LINES):
        (y, x), radius = random.random(2), 0.05 + 0.4 * random.random()
        picture[np.abs(np.hypot(down - y, across - x) - radius) < 0.7 / max(height, width)] = 255
    return picture


def depths(height: int, width: int) -> Hint:
    """A grey slope with bumps, as of depth estimators."""
    random = np.random.default_rng(2)
    down, across = np.mgrid[:height, :width] / max(height, width)
    grey = down.copy()
    for _ in range(_LINES):
        (y, x), size = random.random(2), 0.03 + 0.2 * random.random()
        grey = np.maximum(grey, np.exp(-((down - y) ** 2 + (across - x) ** 2) / (2 * size**2)))
    return np.repeat((255 * grey.clip(0, 1)).astype(np.uint8)[..., None], 3, axis=2)


def colours(height: int, width: int) -> Hint:
    """Areas of one colour each, as of segmentations, normals and poses."""
    random = np.random.default_rng(3)
    picture = np.zeros((height, width, 3), np.uint8)
    for _ in range(_LINES):
        top, left = (random.random(2) * (height, width)).astype(int)
        tall, wide = (1 + random.random(2) * (height, width) / 2).astype(int)
        picture[top : top + tall, left : left + wide] = random.integers(256, size=3)
    return picture


HINTS: tuple[Callable[[int, int], Hint], ...] = (edges, depths, colours)
"""(height, width) → `[height, width, 3]`: what ControlNets are steered by, drawn, so that nothing need be fetched."""
_MODES = tuple(NUMBERS[name] for name in ("canny", "depth", "segment"))
"""What they are to a union."""
