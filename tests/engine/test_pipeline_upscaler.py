"""A second pass whose pictures a network enlarges: diffusers' text to image, spandrel, Lanczos, its image to image."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from pocketxl.engine.errors import IncompatibleError
from pocketxl.engine.pipeline import Pipeline
from pocketxl.engine.progress import ProgressEvent

from ..fixtures.checkpoints import SCHEDULER
from ..fixtures.painters import Painters
from ..fixtures.schedulers import generators, make_scheduler
from ..fixtures.upscalers import through
from ..tolerances import PICTURE_CHANGE, PICTURE_MEAN_THROUGH_PIXELS

if TYPE_CHECKING:
    from ..fixtures.experts import Experts

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' schedulers

PROMPT = "a red cat"
COMMON: dict[str, Any] = {"negative_prompt": "a blue dog", "guidance_scale": 5.0, "num_inference_steps": 4}
SIZES: dict[str, Any] = {"width": 72, "height": 64, "hires_scale": 1.45, "hires_strength": 0.5}


@pytest.fixture(scope="module")
def larger(tiny_engine: Path, tiny_upscaler: tuple[Any, Path]) -> Iterator[Pipeline]:
    with Pipeline.load(tiny_engine, threads=1, upscaler=tiny_upscaler[1]) as pipe:
        yield pipe


def test_it_is_what_diffusers_and_spandrel_make_one_after_the_other(
    larger: Pipeline, pipe: Pipeline, experts: "Experts", tiny_upscaler: tuple[Any, Path], tiny_folders: dict[str, Path]
) -> None:
    options: dict[str, Any] = {"seed": 7, "sampler": "euler_a", "refiner": False, "output_type": "np", **COMMON}
    ours = larger(PROMPT, **SIZES, **options)
    painters, (stream,) = Painters(tiny_folders["base"]), generators([7])
    experts.base.scheduler = make_scheduler("euler_a", "default", dict(SCHEDULER))
    (small,) = experts.base(PROMPT, generator=[stream], height=64, width=72, output_type="pil", **COMMON).images
    four = Image.fromarray((through(tiny_upscaler[0], np.asarray(small)).clip(0, 1) * 255).round().astype(np.uint8))
    painters.whole.scheduler = make_scheduler("euler_a", "default", dict(SCHEDULER))
    large = four.resize((104, 96), Image.Resampling.LANCZOS)
    theirs = painters.whole(PROMPT, image=large, generator=[stream], strength=0.5, output_type="np", **COMMON).images
    assert ours.images.shape == theirs.shape == (1, 96, 104, 3)
    assert float(np.abs(ours.images - theirs).mean()) <= PICTURE_MEAN_THROUGH_PIXELS
    plain = pipe(PROMPT, hires_upscaler="lanczos", **SIZES, **options)
    assert float(np.abs(ours.images - plain.images).mean()) > PICTURE_CHANGE
    told = ours.settings()
    assert (told["Hires upscaler"], len(told["Hires upscaler hash"])) == ("4x-small", 10)
    other = larger(PROMPT, hires_upscaler="lanczos", **SIZES, **options)
    assert np.array_equal(other.images, plain.images), "unless the call says otherwise"
    assert "Hires upscaler hash" not in other.settings()


def test_it_has_a_phase_of_the_plan_and_steps_of_progress(larger: Pipeline) -> None:
    names = [phase.name for phase in larger.plan(PROMPT, **SIZES, refiner=False).phases]
    assert names.index("upscale") + 1 == names.index("encode picture")
    assert "upscale" not in [phase.name for phase in larger.plan(PROMPT, **SIZES, hires_upscaler="lanczos").phases]
    assert "upscale" not in [phase.name for phase in larger.plan(PROMPT, width=64, height=64).phases]
    events: list[ProgressEvent] = []

    def note(event: ProgressEvent) -> None:
        events.append(event)

    larger([PROMPT, "a dog"], seed=3, refiner=False, progress=note, **SIZES, **COMMON)
    ends = [event for event in events if event.stage == "upscale" and event.done]
    assert [(event.step, event.total, event.unit) for event in ends] == [(2, 2, "tile")]


def test_a_call_that_is_ended_there_gives_the_small_picture(larger: Pipeline) -> None:
    def stop(event: ProgressEvent) -> None:
        if event.stage == "upscale":
            larger.interrupt()

    wide = SIZES | {"width": 512, "hires_scale": 2.0}
    output = larger(PROMPT, seed=3, refiner=False, progress=stop, output_type="np", **wide, **COMMON)
    assert output.interrupted
    assert output.images.shape == (1, 64, 512, 3)


def test_with_the_least_memory_it_is_released(tiny_engine: Path, tiny_upscaler: tuple[Any, Path]) -> None:
    with Pipeline.load(tiny_engine, threads=1, upscaler=tiny_upscaler[1], memory_budget=0) as pipe:
        pipe(PROMPT, seed=3, refiner=False, **SIZES, **COMMON)
        assert not pipe.runners["upscaler"].loaded


def test_it_is_no_engine_and_an_engine_is_none_of_it(tiny_engine: Path, tiny_upscaler: tuple[Any, Path]) -> None:
    with pytest.raises(IncompatibleError, match="is an upscaler, which makes no pictures alone"):
        Pipeline.load(tiny_upscaler[1])
    with pytest.raises(IncompatibleError, match="is no upscaler; build one with"):
        Pipeline.load(tiny_engine, upscaler=tiny_engine)
    with pytest.raises(IncompatibleError, match="is no ControlNet"):
        Pipeline.load(tiny_engine, controlnets={"up": tiny_upscaler[1]})
