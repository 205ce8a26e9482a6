"""Calls with pictures: what is kept to the bit and what is loaded."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketxl.engine.errors import NumericError, RequestError
from pocketxl.engine.memory.plan import LEAST
from pocketxl.engine.pipeline import Pipeline

from ..fixtures.painters import landscape, window
from ..tolerances import PICTURE_CHANGE

PROMPT = "a red cat"
SIZE = (96, 64)
COMMON: dict[str, Any] = {"num_inference_steps": 4, "strength": 0.75, "seed": 3, "output_type": "np"}
IMAGE = COMMON | {"image": landscape(*SIZE)}
MASKED = IMAGE | {"mask_image": window(*SIZE)}


def test_what_is_black_in_the_mask_is_pasted_back_to_the_bit(pipe: Pipeline) -> None:
    black = np.asarray(window(*SIZE)) == 0
    own = np.asarray(landscape(*SIZE))
    for kind in ("np", "pil"):
        plain = pipe(PROMPT, **(MASKED | {"output_type": kind})).pixels()
        pasted = pipe(PROMPT, paste_back=True, **(MASKED | {"output_type": kind})).pixels()
        assert np.array_equal(pasted[black], own[black])
        assert np.array_equal(pasted[~black], plain[~black])
        assert not np.array_equal(plain[black], own[black]), "the VAE itself changes it"


def test_a_blurred_mask_pastes_softly_and_what_stays_black_exactly(pipe: Pipeline) -> None:
    options = MASKED | {"mask_blur": 3.0}
    request = pipe.request(PROMPT, **options)
    assert request.pictures is not None
    mask = request.pictures.masks[0]
    plain, pasted = (pipe(PROMPT, paste_back=paste, **options).images[0] for paste in (False, True))
    own = np.asarray(landscape(*SIZE)).astype(np.float32) / 255
    between = (mask > 0) & (mask < 1)
    assert between.any()
    assert np.allclose(pasted, own + (plain - own) * mask[:, :, None], atol=1e-6)
    assert np.array_equal(pasted[mask == 0], own[mask == 0])


def test_a_picture_depends_on_its_own_seed_and_picture_alone(pipe: Pipeline) -> None:
    images = [landscape(*SIZE, 1), landscape(*SIZE, 2)]
    masks = [window(*SIZE), np.ones((64, 96))]
    for options in ({}, {"mask_image": masks}):
        together = pipe(["cat", "dog"], **(COMMON | {"image": images, "seed": [3, 4]} | options)).images
        one = {"mask_image": masks[1]} if options else {}
        alone = pipe("dog", **(COMMON | {"image": images[1], "seed": 4} | one)).images
        assert np.array_equal(together[1], alone[0])
    streamed = list(pipe.stream(["cat", "dog"], **(COMMON | {"image": images, "seed": [3, 4]})))
    assert np.array_equal(streamed[1].images[0], pipe("dog", **(COMMON | {"image": images[1], "seed": 4})).images[0])


def test_arrays_and_pil_pictures_are_one(pipe: Pipeline) -> None:
    array = np.asarray(landscape(*SIZE))
    made = [
        pipe(PROMPT, **(COMMON | {"image": image})).images
        for image in (landscape(*SIZE), array, array.astype(np.float32) / 255)
    ]
    assert np.array_equal(made[0], made[1])
    assert np.abs(made[0] - made[2]).max() < PICTURE_CHANGE


def test_noise_can_be_given_as_latents(pipe: Pipeline) -> None:
    noise = np.random.default_rng(1).standard_normal((1, 4, 8, 12), dtype=np.float32)
    first, again, other = (pipe(PROMPT, latents=latents, **IMAGE).images for latents in (noise, noise, -noise))
    assert np.array_equal(first, again)
    assert np.abs(first - other).mean() > PICTURE_CHANGE


def test_a_callback_sees_the_kept_latents_and_may_replace_them(pipe: Pipeline) -> None:
    seen: list[np.ndarray] = []

    def watch(pipe: Pipeline, index: int, timestep: float, tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append(tensors["latents"])
        return tensors

    options = MASKED | {"refiner": False}
    assert np.array_equal(pipe(PROMPT, callback_on_step_end=watch, **options).images, pipe(PROMPT, **options).images)
    request = pipe.request(PROMPT, **options)
    assert request.pictures is not None
    black = request.pictures.latent_masks(8)[0, 0] == 0
    other = pipe("a blue dog", callback_on_step_end=watch, **options)
    assert other.steps * 2 == len(seen)
    half = len(seen) // 2
    for mine, theirs in zip(seen[:half], seen[half:], strict=True):
        assert np.array_equal(mine[0][:, black], theirs[0][:, black]), "whatever the prompt"


def loaded(pipe: Pipeline) -> bool:
    return pipe.runners["vae_encoder"].loaded


def test_the_encoder_is_loaded_for_a_picture_alone(tiny_engine: Path) -> None:
    with Pipeline.load(tiny_engine, threads=1) as pipe:
        plain: dict[str, Any] = {"num_inference_steps": 2, "width": 64, "height": 64, "refiner": False}
        pipe(PROMPT, **plain)
        pipe(PROMPT, hires_scale=1.5, **plain)
        assert not loaded(pipe)
        pipe(PROMPT, **IMAGE)
        assert loaded(pipe)
    with Pipeline.load(tiny_engine, threads=1, memory_budget=LEAST) as pipe:
        pipe(PROMPT, **IMAGE)
        assert not loaded(pipe)


@pytest.mark.parametrize("output", ["mean", "logvar"])
def test_nan_in_the_encoder_is_an_error(pipe: Pipeline, output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    runner: Any = pipe.runners["vae_encoder"]
    call = type(runner).__call__

    def poisoned(self: Any, *args: Any, **keywords: Any) -> Any:
        outputs = call(self, *args, **keywords)
        if output in outputs:
            outputs[output] = outputs[output] + np.float32("nan")
        return outputs

    monkeypatch.setattr(type(runner), "__call__", poisoned)
    with pytest.raises(NumericError, match="encoder gave NaN or Inf for the picture"):
        pipe(PROMPT, **IMAGE)


def test_too_late_a_beginning_is_one_clear_error(pipe: Pipeline) -> None:
    with pytest.raises(RequestError, match=r"strength is 0\.1, which leaves none of 4 steps; raise it to 0\.25"):
        pipe.plan(PROMPT, **(IMAGE | {"strength": 0.1}))
    late = {name: value for name, value in IMAGE.items() if name != "strength"} | {"denoising_start": 0.999}
    with pytest.raises(RequestError, match="denoising_start leaves no step"):
        pipe.plan(PROMPT, **late)


def test_a_strength_within_the_refiner_s_part_leaves_the_base_out(pipe: Pipeline) -> None:
    options = IMAGE | {"num_inference_steps": 20, "strength": 0.15}
    plan = pipe.plan(PROMPT, **options)
    assert list(plan.workload.evaluations) == ["refiner"]
    assert pipe(PROMPT, **options).steps == 3
