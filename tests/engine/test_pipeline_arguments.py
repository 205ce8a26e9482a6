"""Every keyword of a call against diffusers', and that each one counts. Base → refiner, cut in the middle."""

from collections.abc import Mapping
from dataclasses import fields, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from pocketxl.engine.pipeline import Pipeline
from pocketxl.engine.request.request import GenerationRequest
from pocketxl.engine.sampling.levels.config import SchedulerConfig

from ..fixtures.schedulers import CLASSES, VELOCITY, ZERO_SNR
from ..tolerances import PICTURE_CHANGE, PICTURE_MEAN, PICTURE_MEAN_FROM_4096, SAMPLER_RELATIVE

if TYPE_CHECKING:
    from ..fixtures.experts import Experts

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' schedulers

PLAIN: Mapping[str, Any] = {
    "prompt": "a red cat",
    "negative_prompt": "a blue dog",
    "seed": [3],
    "height": 64,
    "width": 64,
    "num_inference_steps": 6,
    "denoising_end": 0.5,
    "refiner": True,
    "output_type": "np",
}
# Keyword → a call in which it differs from PLAIN, and what must go with it.
CHANGES: Mapping[str, Mapping[str, Any]] = {
    "prompt": {"prompt": "sky"},
    "literal": {"prompt": "a (red) cat", "literal": True},
    "prompt_2": {"prompt_2": "dog"},
    "negative_prompt": {"negative_prompt": None},
    "negative_prompt_2": {"negative_prompt_2": "sky"},
    "height": {"height": 72},
    "width": {"width": 88},
    "num_inference_steps": {"num_inference_steps": 7},
    "timesteps": {"timesteps": [951, 802, 653, 404, 255, 106, 17]},
    "sigmas": {"sigmas": [14.2, 6.3, 2.2, 0.9, 0.4, 0.1, 0.0]},
    "denoising_end": {"denoising_end": 0.8},
    "guidance_scale": {"guidance_scale": 7.5},
    "guidance_rescale": {"guidance_rescale": 0.7},
    "eta": {"sampler": "ddim", "eta": 0.7},
    "latents": {"latents": np.random.default_rng(1).standard_normal((1, 4, 8, 8), dtype=np.float32)},
    "original_size": {"original_size": (40, 56)},
    "crops_coords_top_left": {"crops_coords_top_left": (16, 4)},
    "target_size": {"target_size": (48, 32)},
    "negative_original_size": {"negative_original_size": (32, 48), "negative_target_size": (64, 64)},
    "negative_target_size": {"negative_original_size": (64, 64), "negative_target_size": (24, 48)},
    "negative_crops_coords_top_left": {
        "negative_original_size": (64, 64),
        "negative_target_size": (64, 64),
        "negative_crops_coords_top_left": (4, 24),
    },
    "aesthetic_score": {"aesthetic_score": 9.0},
    "negative_aesthetic_score": {"negative_aesthetic_score": 6.5},
    "seed": {"seed": [4]},
    "sampler": {"sampler": "dpmpp_2m"},
    "schedule": {"schedule": "karras"},
    "refiner": {"refiner": False, "denoising_end": None},
}
# What they go with may change the picture by itself; then they are compared with this instead of PLAIN.
BESIDE: Mapping[str, Mapping[str, Any]] = {"literal": {"prompt": "a (red) cat"}, "eta": {"sampler": "ddim"}}
# Tested below, since they choose how many pictures come, in which form, and who watches.
NO_CHANGE = {"num_images_per_prompt", "output_type", "callback_on_step_end"}
# Other ways of saying what a keyword above says.
OTHERS: Mapping[str, Mapping[str, Any]] = {
    "empty prompt": {"prompt": ""},
    "empty negative prompt": {"negative_prompt": ""},
    "no guidance": {"guidance_scale": 1.0},
    "no guidance, no refiner": {"guidance_scale": 0.0, "refiner": False, "denoising_end": None},
    "odd number of latents": {"height": 72, "width": 88},
    "sigmas that end in noise": {"sigmas": [14.2, 6.3, 2.2, 0.9, 0.4, 0.1]},
    "timesteps of lcm": {"sampler": "lcm", "timesteps": [959, 739, 519, 299, 79]},
    "noise left in": {"refiner": False, "denoising_end": 0.6},
    "one step": {"num_inference_steps": 1, "refiner": False, "denoising_end": None},
    "a cut before the first step": {"denoising_end": 0.001},
    "a cut behind the last step": {"denoising_end": 0.999},
}


# Held to diffusers' other pipelines in test_pictures_in_parity.py and test_pipeline_hires.py.
ELSEWHERE = {
    "image", "strength", "mask_image", "mask_blur", "padding_mask_crop",
    "paste_back", "denoising_start", "base", "hires_scale",
    "hires_strength", "hires_steps", "hires_upscaler",
}  # fmt: skip


def ours(pipe: Pipeline, **options: Any) -> np.ndarray:
    made = pipe(**{**PLAIN, **options}).images
    assert isinstance(made, np.ndarray)
    return made


def theirs(experts: "Experts", **options: Any) -> np.ndarray:
    return experts(**{**PLAIN, **options})


def apart(one: np.ndarray, other: np.ndarray) -> float:
    assert one.shape == other.shape
    return float(np.abs(one - other).mean())


def with_scheduler(pipe: Pipeline, config: Mapping[str, Any]) -> Pipeline:
    """The engine of a checkpoint that differs in its scheduler config alone: only the manifest has it."""
    scheduler = SchedulerConfig.of(config)
    models = {kind: replace(model, scheduler=scheduler) for kind, model in pipe.models.denoisers.items()}
    return Pipeline(replace(pipe.models, denoisers=models), pipe.runners, pipe.tokenizers)


@pytest.fixture(scope="module")
def plain(pipe: Pipeline) -> np.ndarray:
    return ours(pipe)


@pytest.mark.parametrize("name", [*CHANGES, *OTHERS])
def test_equals_diffusers(pipe: Pipeline, experts: "Experts", name: str) -> None:
    options = CHANGES.get(name) or OTHERS[name]
    assert apart(ours(pipe, **options), theirs(experts, **options)) <= PICTURE_MEAN


@pytest.mark.parametrize("keyword", CHANGES)
def test_keyword_counts(pipe: Pipeline, plain: np.ndarray, keyword: str) -> None:
    beside = BESIDE.get(keyword)
    if keyword.startswith("negative_") and len(CHANGES[keyword]) > 1:
        beside = {"negative_original_size": (64, 64), "negative_target_size": (64, 64)}
    reference = plain if beside is None else ours(pipe, **beside)
    changed = ours(pipe, **CHANGES[keyword])
    assert changed.shape != reference.shape or apart(changed, reference) > PICTURE_CHANGE


def test_every_keyword_is_looked_at() -> None:
    others = {  # tested where what they do is
        "clip_skip", "generator", "guidance_start", "guidance_end", "deep_cache", "preset", "loras", "lora_folder",
        "embedding_folder", "dynamic",
        "wildcard_folder", "prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds",
        "negative_pooled_prompt_embeds", "image", "strength", "mask_image", "mask_blur", "padding_mask_crop",
    "paste_back",
        "denoising_start", "base", "hires_scale", "hires_strength", "hires_steps", "hires_upscaler",
        "decoder", "control_image", "controlnet_conditioning_scale", "control_guidance_start", "control_guidance_end",
        "control_preprocess", "control_mode", "adapter_image", "adapter_conditioning_scale",
        "adapter_conditioning_factor", "adapter_preprocess", "ip_adapter_image", "ip_adapter_scale",
    }  # fmt: skip
    assert {field.name for field in fields(GenerationRequest)} == {*CHANGES, *NO_CHANGE, *others}


def test_generator_is_a_seed(pipe: Pipeline, plain: np.ndarray) -> None:
    for several in (False, True):
        generator = torch.Generator("cpu").manual_seed(3)
        drawn = ours(pipe, seed=None, generator=[generator] if several else generator)
        assert apart(drawn, plain) <= PICTURE_MEAN, "torch's own noise, which ours is within three units of"


def test_output_types(pipe: Pipeline, plain: np.ndarray, experts: "Experts") -> None:
    (picture,) = pipe(**{**PLAIN, "output_type": "pil"}).images
    assert picture.size == (64, 64)
    assert np.array_equal(np.asarray(picture), (plain[0] * 255).round().astype(np.uint8))
    latents = ours(pipe, output_type="latent")
    expected = theirs(experts, output_type="latent")
    assert np.abs(latents - expected).max() <= SAMPLER_RELATIVE * np.abs(expected).max()


def test_latents_with_the_leftover_noise(pipe: Pipeline, experts: "Experts") -> None:
    options = {"refiner": False, "denoising_end": 0.6, "output_type": "latent"}
    left, expected = ours(pipe, **options), theirs(experts, **options)
    assert np.abs(left - expected).max() <= SAMPLER_RELATIVE * np.abs(expected).max()
    clean = ours(pipe, **{**options, "denoising_end": None})
    assert apart(left, clean) > 0.1


def test_prompts_times_images(pipe: Pipeline, experts: "Experts") -> None:
    options: dict[str, Any] = {
        "prompt": ["a red cat", "sky"],
        "prompt_2": ["dog", "a cat"],
        "negative_prompt": ["", "a dog"],
        "num_images_per_prompt": 2,
        "seed": [7, 1, 9, 4],
    }
    made = ours(pipe, **options)
    assert apart(made, theirs(experts, **options)) <= PICTURE_MEAN
    assert min(apart(made[i], made[j]) for i in range(4) for j in range(i)) > PICTURE_CHANGE


def test_one_seed_counts_up(pipe: Pipeline) -> None:
    options = {"num_images_per_prompt": 2, "refiner": False, "denoising_end": None}
    assert np.array_equal(ours(pipe, seed=7, **options), ours(pipe, seed=[7, 8], **options))


def test_negative_sizes_in_a_batch(pipe: Pipeline, experts: "Experts") -> None:
    """diffusers' base hands the size ids of a batch to the wrong rows; its pictures made alone are right."""
    options: dict[str, Any] = {
        **CHANGES["negative_crops_coords_top_left"], **CHANGES["negative_original_size"], "refiner": False,
        "denoising_end": None,
    }  # fmt: skip
    made = ours(pipe, **options, num_images_per_prompt=2, seed=[3, 5])
    for picture, seed in zip(made, (3, 5), strict=True):
        assert apart(picture[None], theirs(experts, **options, seed=[seed])) <= PICTURE_MEAN


def test_long_prompts(pipe: Pipeline, experts: "Experts") -> None:
    start, rest = "a red cat " * 25, "and a blue dog"  # 75 tokens, all that diffusers looks at
    cut, whole = ours(pipe, prompt=start), ours(pipe, prompt=start + rest)
    assert apart(cut, theirs(experts, prompt=start + rest)) <= PICTURE_MEAN
    assert apart(cut, whole) > PICTURE_CHANGE
    assert apart(whole, ours(pipe, prompt=start + rest + " sky")) > PICTURE_CHANGE
    assert apart(ours(pipe), ours(pipe, negative_prompt=start + rest)) > PICTURE_CHANGE


def test_weights_in_prompts(pipe: Pipeline, plain: np.ndarray, experts: "Experts") -> None:
    assert np.array_equal(ours(pipe, prompt="a (red:1.0) cat"), plain)
    assert apart(ours(pipe, prompt="a (red:1.4) cat"), plain) > PICTURE_CHANGE


def velocity_cases() -> list[Any]:
    """Three that start differently are not slow. diffusers' heun has no zero SNR."""
    rows = [row for row in product(CLASSES, ("velocity", "zero_snr"), (False, True)) if row[:2] != ("heun", "zero_snr")]
    quick = (("euler", "zero_snr", True), ("ddim", "zero_snr", True), ("dpmpp_2m", "velocity", False))
    return [pytest.param(*row, marks=() if row in quick else pytest.mark.slow) for row in rows]


@pytest.mark.parametrize(("sampler", "config", "refiner"), velocity_cases())
def test_velocity_checkpoints(pipe: Pipeline, experts: "Experts", sampler: str, config: str, refiner: bool) -> None:
    scheduler = {"velocity": VELOCITY, "zero_snr": ZERO_SNR}[config]
    options = {"sampler": sampler, "refiner": refiner, "denoising_end": 0.5 if refiner else None}
    made = ours(with_scheduler(pipe, scheduler), **options, guidance_rescale=0.7)
    expected = theirs(experts, **options, guidance_rescale=0.7, config=scheduler)
    assert expected.std() > 0.05
    from_4096 = config == "zero_snr" and sampler in ("euler", "euler_a", "dpmpp_sde")
    assert apart(made, expected) <= (PICTURE_MEAN_FROM_4096 if from_4096 else PICTURE_MEAN)
