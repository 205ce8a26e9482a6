"""Whole pictures against diffusers: the same weights, starting latents and noise; 20 steps with guidance."""

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pocketxl.engine.pipeline import Pipeline

from ..fixtures.schedulers import PAIRS
from ..tolerances import PICTURE_MEAN

if TYPE_CHECKING:
    from ..fixtures.experts import Experts

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' schedulers

PROMPTS = ["a red cat", "blue sky and a dog", "dog"]
NEGATIVE = "a blue dog"
SEEDS = [11, 5, 2**31 + 7]
SIZES = {"square": (64, 64), "3:2": (64, 96)}  # height, width
# Alone or on to the refiner, size, pictures; neighbours differ in all three, so that every sampler meets each value.
SHAPES = [
    ("base", "square", 1), ("refiner", "3:2", 3), ("base", "3:2", 3), ("refiner", "square", 1),
    ("base", "square", 3), ("refiner", "3:2", 1), ("base", "3:2", 1), ("refiner", "square", 3),
]  # fmt: skip


def cases() -> list[Any]:
    """Every pair with every shape; one shape a pair, in turn, is not slow. LCM has one schedule, so a second shape."""
    made = []
    for (index, pair), (turn, shape) in product(enumerate(PAIRS), enumerate(SHAPES)):
        quick = turn == index % len(SHAPES) or (pair[0] == "lcm" and turn == (index + 1) % len(SHAPES))
        name = "-".join(map(str, (*pair, *shape)))
        made.append(pytest.param(*pair, *shape, id=name, marks=() if quick else pytest.mark.slow))
    return made


def starting_latents(images: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(17).standard_normal((images, 4, height // 8, width // 8), dtype=np.float32)


def difference(ours: Any, theirs: np.ndarray) -> float:
    """Mean absolute difference; `theirs` must be a picture, not a flat field that anything equals."""
    assert ours.shape == theirs.shape
    assert theirs.std() > 0.05
    return float(np.abs(ours - theirs).mean())


@pytest.mark.parametrize(("sampler", "schedule", "last", "size", "images"), cases())
def test_equals_diffusers(
    pipe: Pipeline,
    experts: "Experts",
    sampler: str,
    schedule: str,
    last: str,
    size: str,
    images: int,
    record_property: Any,
) -> None:
    height, width = SIZES[size]
    refiner = last == "refiner"
    # Three pictures are three prompts in one size, three of one prompt in the other.
    several = images > 1 and size == "3:2"
    options: dict[str, Any] = {
        "prompt": PROMPTS if several else PROMPTS[0],
        "negative_prompt": [NEGATIVE, "", "sky"] if several else NEGATIVE,
        "num_images_per_prompt": 1 if several else images,
        "height": height,
        "width": width,
        "num_inference_steps": 20,
        "guidance_scale": 5.0,
        "sampler": sampler,
        "schedule": schedule,
        "seed": SEEDS[:images],
        "latents": starting_latents(images, height, width),
        "denoising_end": 0.8 if refiner else None,
        "refiner": refiner,
        "output_type": "np",
    }
    found = difference(pipe(**options).images, experts(**options))
    record_property("difference", found)
    assert found <= PICTURE_MEAN
