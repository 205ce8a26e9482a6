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
# Alone or on to the refiner, size, pictures.
SHAPES = list(product(("base", "refiner"), SIZES, (1, 3)))


def cases() -> list[Any]:
    """Every pair with two opposite shapes, which turn from pair to pair; of each sampler one pair is not slow."""
    found, seen = [], set()
    for turn, pair in enumerate(PAIRS):
        for shape in (SHAPES[turn % len(SHAPES)], SHAPES[-1 - turn % len(SHAPES)]):
            quick = pair[0] not in seen
            found.append(
                pytest.param(
                    *pair, *shape, id="-".join(map(str, (*pair, *shape))), marks=() if quick else pytest.mark.slow
                )
            )
        seen.add(pair[0])
    return found


def test_every_sampler_meets_every_side_of_a_shape() -> None:
    """What turns comes around to all of them: alone and with the refiner, both sizes, one picture and several."""
    met: dict[str, set[Any]] = {}
    for case in cases():
        sampler, _, *shape = case.values
        met.setdefault(sampler, set()).update(shape)
    assert all(sides == {"base", "refiner", *SIZES, 1, 3} for sides in met.values())


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
    assert difference(pipe(**options).images, experts(**options)) <= PICTURE_MEAN
