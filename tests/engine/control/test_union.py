"""Pictures that a ControlNet-Union steers against diffusers, and what is wrong with them."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pocketxl.engine.errors import RequestError
from pocketxl.engine.memory.plan import LEAST
from pocketxl.engine.pipeline import Pipeline

from ...fixtures.checkpoints import SCHEDULER
from ...fixtures.controlnets import edges
from ...fixtures.schedulers import make_scheduler
from ...tolerances import PICTURE_CHANGE, PICTURE_MEAN

Folders = Mapping[str, tuple[Path, Path]]
HEIGHT, WIDTH = 64, 96
LATENTS = np.random.default_rng(5).standard_normal((1, 4, HEIGHT // 8, WIDTH // 8), dtype=np.float32)
HINT, OTHER = edges(HEIGHT, WIDTH), edges(HEIGHT, WIDTH, seed=9)
COMMON: Mapping[str, Any] = {
    "prompt": "a red cat",
    "negative_prompt": "a blue dog",
    "num_inference_steps": 6,
    "guidance_scale": 5.0,
    "height": HEIGHT,
    "width": WIDTH,
}
OURS: Mapping[str, Any] = {**COMMON, "refiner": False, "seed": 1, "latents": LATENTS, "output_type": "np"}


@pytest.fixture(scope="module")
def steered(tiny_engine: Path, tiny_union_folder: Path, tiny_controlnets: Folders) -> Iterator[Pipeline]:
    folders = {"union": tiny_union_folder, "canny": tiny_controlnets["canny"][1]}
    with Pipeline.load(tiny_engine, threads=1, controlnets=folders) as pipe:
        yield pipe


@pytest.fixture(scope="module")
def theirs(tiny_folders: Mapping[str, Path], tiny_union_folder: Path) -> Callable[..., Any]:
    from diffusers import ControlNetUnionModel, StableDiffusionXLControlNetUnionPipeline

    torch.set_num_threads(1)
    pipe = StableDiffusionXLControlNetUnionPipeline.from_pretrained(
        tiny_folders["base"],
        controlnet=ControlNetUnionModel.from_pretrained(tiny_union_folder.parent / "union"),
        add_watermarker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = make_scheduler("euler", "default", dict(SCHEDULER))

    def call(pictures: list[np.ndarray], **options: Any) -> Any:
        images = [Image.fromarray(picture) for picture in pictures]
        given = {**COMMON, "latents": torch.from_numpy(LATENTS), "output_type": "np", **options}
        return pipe(control_image=images, **given).images

    return call


CASES: Mapping[str, Mapping[str, Any]] = {
    "by number": {"control_mode": [3]},
    "scaled, from and to": {
        "control_mode": [1],
        "controlnet_conditioning_scale": 0.4,
        "control_guidance_start": 0.2,
        "control_guidance_end": 0.7,
    },
    "without guidance": {"control_mode": [5], "guidance_scale": 1.0},
    "two hints": {"control_mode": [3, 1], "controlnet_conditioning_scale": [0.7, 0.4]},
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_that_of_diffusers(steered: Pipeline, theirs: Callable[..., Any], case: str) -> None:
    options = dict(CASES[case])
    pictures = [HINT, OTHER][: len(options["control_mode"])]
    named: dict[str, Any] = {key: {"union": value} for key, value in options.items() if key.startswith("control")}
    rest = {key: value for key, value in options.items() if key not in named}
    ours = steered(**{**OURS, **rest}, control_image={"union": pictures}, **named).images
    plain = steered(**{**OURS, **rest}).images
    assert float(np.abs(ours - theirs(pictures, **options)).mean()) <= PICTURE_MEAN
    assert float(np.abs(ours - plain).mean()) > PICTURE_CHANGE


def test_alone_it_takes_what_diffusers_takes(tiny_engine: Path, tiny_union_folder: Path, steered: Pipeline) -> None:
    """Lists without names, and numbers or names of kinds."""
    with Pipeline.load(tiny_engine, threads=1, controlnets={"union": tiny_union_folder}) as pipe:
        found = [
            pipe(**OURS, control_image=image, control_mode=mode).images
            for image, mode in ((HINT, "canny"), ([HINT], [3]), (HINT, "canny/lineart/anime_lineart/mlsd"))
        ]
        pipe(**{**OURS, "num_inference_steps": 1}, control_image=[HINT], control_mode=[3], control_guidance_end=[1.0])
    named = steered(**OURS, control_image={"union": HINT}, control_mode="mlsd").images
    for other in found:
        assert (other == named).all()
    depth = steered(**OURS, control_image={"union": HINT}, control_mode="depth").images
    assert np.abs(named - depth).mean() > PICTURE_CHANGE


def test_it_goes_with_a_controlnet_of_one_kind(steered: Pipeline) -> None:
    alone = steered(**OURS, control_image={"union": HINT}, control_mode="canny").images
    both = steered(**OURS, control_image={"union": HINT, "canny": OTHER}, control_mode="canny").images
    assert np.abs(alone - both).mean() > PICTURE_CHANGE


def test_the_plan_has_it(steered: Pipeline) -> None:
    plan = steered.plan(**OURS, control_image={"union": HINT}, control_mode="canny", budget=LEAST)
    assert {"hint union", "condition union"} <= {phase.name for phase in plan.phases}


WRONG: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "no kind": ({"control_image": {"union": HINT}}, "must be told what its picture is; give control_mode"),
    "an unknown kind": (
        {"control_image": {"union": HINT}, "control_mode": "pose"},
        "control_mode of union is 'pose'; choose openpose, depth,",
    ),
    "a kind that only promax has": (
        {"control_image": {"union": HINT}, "control_mode": "tile"},
        "or a number from 0 to 5",
    ),
    "a number beyond": ({"control_image": {"union": HINT}, "control_mode": 6}, "control_mode of union is 6"),
    "a bool": ({"control_image": {"union": HINT}, "control_mode": True}, "control_mode of union is True"),
    "no union": ({"control_image": {"canny": HINT}, "control_mode": "canny"}, "canny is no ControlNet-Union"),
    "no union, by name": (
        {"control_image": {"union": HINT, "canny": HINT}, "control_mode": {"union": "canny", "canny": "canny"}},
        "names canny, which is no ControlNet-Union",
    ),
    "no picture": ({"control_mode": "canny"}, "control_mode was given without control_image"),
    "fewer kinds than pictures": (
        {"control_image": {"union": [HINT, OTHER]}, "control_mode": {"union": ["canny"]}},
        "control_mode of union has 1 values for 2 pictures",
    ),
    "an empty list": ({"control_image": {"union": []}, "control_mode": "canny"}, "has 0 pictures; give 1 to 8"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_argument(steered: Pipeline, case: str) -> None:
    options, words = WRONG[case]
    with pytest.raises(RequestError) as caught:
        steered("a red cat", **options)
    assert words in str(caught.value)
