"""Short runs of which nothing is kept but what layers show: other prompts, other noise levels, a quarter of the pixels.

Two pictures do not show how far activations go on others. And an ensemble's base never sees the last noise levels that
it sees alone, nor its refiner those before the handoff.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ...engine.pipeline import Pipeline
from ...engine.progress import Progress
from ..quantize.recipes import CalibrationSettings
from .painted import painted_into
from .prompts import WATCHED, WATCHED_TO_THE_END
from .steered import Steered

_GUIDANCE = 1.5
"""Enough for both sides to be computed."""
_HANDOFF = 0.5

Run = Callable[[Progress], np.ndarray]


def watched_runs(pipe: Pipeline | Steered, settings: CalibrationSettings, size: int) -> list[Run]:
    """Runs that give their pictures; each is one call of the pipeline."""
    ensemble = "refiner" in pipe.models.denoisers
    through = {"denoising_end": _HANDOFF} if ensemble else {}
    alone = {"refiner": False} if ensemble else {}
    step = max(8, pipe.models.vae.downscale)
    side = max(size // 2 // step, 1) * step
    runs = [(pair, through) for pair in WATCHED] + [(pair, alone) for pair in WATCHED_TO_THE_END]
    return [
        partial(_run, pipe, pair, settings.watched, side, options, index) for index, (pair, options) in enumerate(runs)
    ]


def _run(
    pipe: Pipeline | Steered,
    prompts: tuple[str, str],
    steps: int,
    side: int,
    options: dict[str, Any],
    seed: int,
    progress: Progress,
) -> np.ndarray:
    prompt, negative = prompts
    picture: np.ndarray = pipe(
        prompt,
        negative_prompt=negative,
        guidance_scale=_GUIDANCE,
        num_inference_steps=steps,
        width=side,
        height=side,
        seed=seed,
        output_type="np",
        progress=progress,
        **options,
        **painted_into(pipe.models, seed, side),
    ).images[0]
    return picture
