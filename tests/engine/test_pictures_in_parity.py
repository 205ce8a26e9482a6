"""Pictures made from pictures against diffusers: the same weights and generators; 10 to 20 steps with guidance."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from pocketxl.engine.pipeline import Pipeline

from ..fixtures.checkpoints import SCHEDULER
from ..fixtures.painters import Painters, landscape, window
from ..fixtures.schedulers import PAIRS, generators, make_scheduler
from ..tolerances import PICTURE_MEAN, PICTURE_MEAN_THROUGH_PIXELS

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' schedulers

SIZE = (96, 64)
COMMON: dict[str, Any] = {"negative_prompt": "a blue dog", "guidance_scale": 5.0, "num_inference_steps": 10}
PROMPT = "a red cat"
FIRST_OF_EACH = {next(pair for pair in PAIRS if pair[0] == name) for name, _ in PAIRS}


@pytest.fixture(scope="module")
def painters(tiny_folders: "dict[str, Path]") -> Painters:
    return Painters(tiny_folders["base"])


def cases() -> list[Any]:
    """Every sampler with every schedule that diffusers has; those beyond its first are slow."""
    return [
        pytest.param(*pair, id="-".join(pair), marks=() if pair in FIRST_OF_EACH else pytest.mark.slow)
        for pair in PAIRS
    ]


def hold(ours: Any, theirs: np.ndarray) -> None:
    """Equal, and a picture."""
    assert ours.shape == theirs.shape
    assert theirs.std() > 0.05
    assert float(np.abs(ours - theirs).mean()) <= PICTURE_MEAN


@pytest.mark.parametrize(("sampler", "schedule"), cases())
@pytest.mark.parametrize("masked", [False, True], ids=["image", "mask"])
def test_equals_diffusers(pipe: Pipeline, painters: Painters, sampler: str, schedule: str, masked: bool) -> None:
    options: dict[str, Any] = COMMON | {"image": landscape(*SIZE), "strength": 0.6}
    options |= {"sampler": sampler, "schedule": schedule, "output_type": "np"}
    options |= {"mask_image": window(*SIZE)} if masked else {}
    hold(pipe(PROMPT, seed=11, refiner=False, **options).images, painters(PROMPT, seed=[11], **options))


@pytest.mark.parametrize("strength", [0.11, 0.35, 1.0])
@pytest.mark.parametrize("masked", [False, True], ids=["image", "mask"])
def test_every_strength(pipe: Pipeline, painters: Painters, strength: float, masked: bool) -> None:
    """At 1 a mask leaves nothing of the picture in what is painted anew; without one it shines through."""
    options: dict[str, Any] = COMMON | {"image": landscape(*SIZE), "strength": strength, "output_type": "np"}
    options |= {"mask_image": window(*SIZE)} if masked else {}
    hold(pipe(PROMPT, seed=5, refiner=False, **options).images, painters(PROMPT, seed=[5], **options))


def test_the_default_strengths_are_diffusers_own(pipe: Pipeline, painters: Painters) -> None:
    for options in ({"image": landscape(*SIZE)}, {"image": landscape(*SIZE), "mask_image": window(*SIZE)}):
        given = COMMON | options | {"output_type": "np"}
        hold(pipe(PROMPT, seed=5, refiner=False, **given).images, painters(PROMPT, seed=[5], **given))


def test_a_picture_of_an_odd_size_is_made_smaller_as_there(pipe: Pipeline, painters: Painters) -> None:
    options: dict[str, Any] = COMMON | {"image": landscape(101, 70), "strength": 0.5, "output_type": "np"}
    ours = pipe(PROMPT, seed=5, refiner=False, **options).images
    assert ours.shape == (1, 64, 96, 3)
    hold(ours, painters(PROMPT, seed=[5], **options))


def test_several_pictures_of_a_prompt(pipe: Pipeline, painters: Painters) -> None:
    options: dict[str, Any] = COMMON | {"image": landscape(*SIZE), "strength": 0.5, "output_type": "np"}
    options["num_images_per_prompt"] = 2
    hold(pipe(PROMPT, seed=[5, 9], refiner=False, **options).images, painters(PROMPT, seed=[5, 9], **options))


def test_base_and_refiner_as_an_ensemble(pipe: Pipeline, painters: Painters, tiny_folders: "dict[str, Path]") -> None:
    refiner = Painters(tiny_folders["refiner"])
    options: dict[str, Any] = COMMON | {"image": landscape(*SIZE), "strength": 0.6, "sampler": "dpmpp_2m"}
    handed = painters(PROMPT, seed=[11], output_type="latent", denoising_end=0.7, **options)
    theirs = refiner(PROMPT, seed=[11], **(options | {"image": handed}), denoising_start=0.7)
    hold(pipe(PROMPT, seed=11, output_type="np", denoising_end=0.7, **options).images, theirs)


def test_the_refiner_alone_on_any_picture(pipe: Pipeline, tiny_folders: "dict[str, Path]") -> None:
    refiner = Painters(tiny_folders["refiner"])
    options: dict[str, Any] = COMMON | {"image": landscape(*SIZE), "output_type": "np", "aesthetic_score": 5.0}
    hold(pipe(PROMPT, seed=11, base=False, **options).images, refiner(PROMPT, seed=[11], **options))


def test_latents_with_the_noise_that_is_left(pipe: Pipeline, tiny_folders: "dict[str, Path]") -> None:
    """As diffusers' users hand the base's latents to the refiner themselves."""
    refiner = Painters(tiny_folders["refiner"])
    handed = pipe(PROMPT, seed=7, refiner=False, denoising_end=0.6, output_type="latent", width=96, height=64).images
    options: dict[str, Any] = COMMON | {"image": handed, "denoising_start": 0.6, "output_type": "np"}
    hold(pipe(PROMPT, seed=7, base=False, **options).images, refiner(PROMPT, seed=[7], **options))


@pytest.mark.parametrize(("width", "height"), [(64, 64), (96, 64)], ids=["square", "wide"])
def test_the_part_around_a_mask_alone_is_diffusers(pipe: Pipeline, painters: Painters, width: int, height: int) -> None:
    """At full size and put back: its picture is the given one's size, whose black parts stay to the bit."""
    given = landscape(150, 110)
    mask = Image.fromarray(np.pad(np.full((20, 30), 255, np.uint8), ((70, 20), (12, 108))))
    options: dict[str, Any] = COMMON | {"image": given, "mask_image": mask, "strength": 0.6, "padding_mask_crop": 6}
    ours = pipe(PROMPT, seed=5, refiner=False, output_type="np", width=width, height=height, **options)
    painters.masked.scheduler = make_scheduler("euler", "default", dict(SCHEDULER))
    (theirs,) = painters.masked(PROMPT, generator=generators([5]), width=width, height=height, **options).images
    expected = np.asarray(theirs, np.float32)[None] / 255
    assert float(np.abs(ours.images - expected).mean()) <= PICTURE_MEAN_THROUGH_PIXELS
    own = np.asarray(given, np.float32) / 255
    kept = np.asarray(mask) == 0
    assert np.array_equal(ours.images[0][kept], own[kept])
    assert np.abs(ours.images[0] - own)[~kept].mean() > 0.02
    assert ours.settings()["Masked area padding"] == "6"
