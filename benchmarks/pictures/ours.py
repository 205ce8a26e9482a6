"""Our engines."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from pocketxl.engine import Pipeline
from pocketxl.engine.folder.manifest import read_manifest

from .cases import HAND_OVER, Case
from .stages import Stages


def name_of(engine: Path) -> str:
    """`pocketxl-int8-cuda`."""
    manifest = read_manifest(engine)
    return f"pocketxl-{manifest.recipe}-{manifest.target}"


class Ours:
    """One engine, all of it in memory where that has room."""

    def __init__(self, engine: Path) -> None:
        self._pipe = Pipeline.load(engine)
        self._devices = {id(runner.device): runner.device for runner in self._pipe.runners.values()}

    def make(self, case: Case, text: str, seed: int) -> Stages:
        """See `Maker`."""
        started = time.perf_counter()
        request = self._pipe.request(text, seed=seed, **_options(case))
        embeddings = self._pipe.encode(request)
        marks = [time.perf_counter()]
        steps = self._pipe.sample(request, embeddings)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                latents = end.value
                break
            marks.append(time.perf_counter())
        sampled = time.perf_counter()
        pictures = self._pipe.decode(latents, output_type="np")
        done = time.perf_counter()
        return Stages.of(started, marks, sampled, done, np.asarray(pictures))

    def in_use(self) -> int | None:
        """See `Maker`."""
        return next((used for device in self._devices.values() if (used := device.in_use) is not None), None)

    def planned(self, case: Case) -> int | None:
        """See `Maker`."""
        plan = self._pipe.plan("a red apple", seed=0, **_options(case))
        return plan.peak_bytes if plan.pool == "device" else None


def _options(case: Case) -> dict[str, Any]:
    options: dict[str, Any] = {
        "width": case.side, "height": case.side, "num_inference_steps": case.steps, "guidance_scale": case.guidance,
        "num_images_per_prompt": case.images, "sampler": "euler", "refiner": case.refined,
    }  # fmt: skip
    return {**options, "denoising_end": HAND_OVER} if case.refined else options
