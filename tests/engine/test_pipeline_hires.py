"""A second, larger pass: diffusers' text to image, an enlargement, and its image to image with the same generator."""

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch.nn.functional as F
from PIL import Image

from pocketxl.engine.pipeline import Pipeline
from pocketxl.engine.progress import ProgressEvent

from ..fixtures.checkpoints import SCHEDULER
from ..fixtures.painters import Painters
from ..fixtures.schedulers import generators, make_scheduler
from ..tolerances import PICTURE_MEAN, PICTURE_MEAN_THROUGH_PIXELS

if TYPE_CHECKING:
    from pathlib import Path

    from ..fixtures.experts import Experts

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' schedulers

PROMPT = "a red cat"
COMMON: dict[str, Any] = {"negative_prompt": "a blue dog", "guidance_scale": 5.0, "num_inference_steps": 8}


@pytest.fixture(scope="module")
def painters(tiny_folders: "dict[str, Path]") -> Painters:
    return Painters(tiny_folders["base"])


def composed(experts: "Experts", painters: Painters, upscaler: str, steps: int, strength: float) -> np.ndarray:
    """64 × 72 pixels, then 96 × 104 of them."""
    (stream,) = generators([7])
    kind = "latent" if upscaler == "latent" else "pil"
    experts.base.scheduler = make_scheduler("euler_a", "default", dict(SCHEDULER))
    small = experts.base(
        PROMPT, generator=[stream], height=64, width=72, output_type=kind, **COMMON
    ).images  # whose generator has moved on
    if upscaler == "latent":
        large = F.interpolate(small, size=(12, 13), mode="bilinear")
    else:
        large = small[0].resize((104, 96), Image.Resampling.LANCZOS)
    painters.whole.scheduler = make_scheduler("euler_a", "default", dict(SCHEDULER))
    options = COMMON | {"num_inference_steps": steps, "strength": strength}
    made: np.ndarray = painters.whole(PROMPT, image=large, generator=[stream], output_type="np", **options).images
    return made


@pytest.mark.parametrize("upscaler", ["latent", "lanczos"])
def test_it_is_what_diffusers_pipelines_make_one_after_the_other(
    pipe: Pipeline, experts: "Experts", painters: Painters, upscaler: str
) -> None:
    ours = pipe(
        PROMPT, seed=7, width=72, height=64, hires_scale=1.45, hires_strength=0.5, hires_upscaler=upscaler,
        sampler="euler_a", refiner=False, output_type="np", **COMMON,
    ).images  # fmt: skip
    theirs = composed(experts, painters, upscaler, steps=8, strength=0.5)
    assert ours.shape == theirs.shape == (1, 96, 104, 3)
    assert theirs.std() > 0.05
    limit = PICTURE_MEAN if upscaler == "latent" else PICTURE_MEAN_THROUGH_PIXELS
    assert float(np.abs(ours - theirs).mean()) <= limit


def test_hires_steps_are_those_that_are_made(pipe: Pipeline, experts: "Experts", painters: Painters) -> None:
    """As in AUTOMATIC1111: five steps at a strength of 0.5 are the last five of ten."""
    ours = pipe(
        PROMPT, seed=7, width=72, height=64, hires_scale=1.45, hires_strength=0.5, hires_steps=5, sampler="euler_a",
        refiner=False, output_type="np", **COMMON,
    )  # fmt: skip
    theirs = composed(experts, painters, "latent", steps=10, strength=0.5)
    assert ours.steps == 8 + 5
    assert float(np.abs(ours.images - theirs).mean()) <= PICTURE_MEAN


def test_a_picture_is_the_same_alone_and_among_others(pipe: Pipeline) -> None:
    options: dict[str, Any] = COMMON | {"hires_scale": 1.5, "output_type": "np", "width": 64, "height": 64}
    together = pipe([PROMPT, "dog"], seed=[3, 4], **options)
    alone = pipe("dog", seed=4, **options)
    assert np.array_equal(together.images[1], alone.images[0])


def test_the_refiner_ends_the_second_pass_and_steps_are_counted_over_both(pipe: Pipeline) -> None:
    seen: list[int] = []
    request = pipe.request(PROMPT, seed=3, hires_scale=1.5, hires_strength=0.5, width=64, height=64, **COMMON)
    sizes = []
    for step in pipe.sample(request, pipe.encode(request)):
        seen.append(step.index)
        sizes.append(step.latents.shape[2])
    assert seen == list(range(8 + 4))
    assert sizes == [8] * 8 + [12] * 4
    assert all(a <= b for a, b in pairwise(sizes))


def test_the_plan_counts_what_the_second_pass_needs(pipe: Pipeline) -> None:
    def phases(**options: Any) -> list[str]:
        plan = pipe.plan(PROMPT, width=64, height=64, **options)
        assert plan.workload.width == (96 if options else 64)
        return [phase.name for phase in plan.phases]

    plain = phases()
    assert "encode picture" not in plain
    assert phases(hires_scale=1.5) == plain
    assert set(phases(hires_scale=1.5, hires_upscaler="lanczos")) - set(plain) == {"encode picture"}


def test_an_interrupted_first_pass_gives_its_picture_small(pipe: Pipeline) -> None:
    def stop(pipe: Pipeline, index: int, timestep: float, tensors: dict[str, Any]) -> None:
        if index == 3:
            pipe.interrupt()

    output = pipe(
        PROMPT, seed=3, hires_scale=1.5, width=64, height=64, output_type="np", callback_on_step_end=stop, **COMMON
    )
    assert output.interrupted
    assert output.steps == 4
    assert output.images.shape == (1, 64, 64, 3)


def test_progress_tells_of_both_passes(pipe: Pipeline) -> None:
    events: list[ProgressEvent] = []

    def note(event: ProgressEvent) -> None:
        events.append(event)

    pipe(PROMPT, seed=3, hires_scale=1.5, width=64, height=64, refiner=False, progress=note, **COMMON)
    ends = [event for event in events if event.stage == "denoise" and event.done]
    assert [event.step for event in ends] == [8, 5]
