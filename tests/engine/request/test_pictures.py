"""Pictures in a request: sizes, masks, what goes with what, and one clear error for the rest."""

import inspect
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLInpaintPipeline
from PIL import Image

from pocketxl.engine.errors import RequestError
from pocketxl.engine.folder.manifest import read_manifest
from pocketxl.engine.miniature import FOLDER
from pocketxl.engine.pictures_in.input import PictureInput
from pocketxl.engine.request.pictures import MASKED_STRENGTH, STRENGTH
from pocketxl.engine.request.resolve import resolve

from ...fixtures.painters import landscape, window

WITHOUT = replace(read_manifest(FOLDER).models, encodes=False)
MODELS = replace(WITHOUT, encodes=True)


def given(prompt: Any = "a cat", **keywords: Any) -> PictureInput:
    found = resolve({"prompt": prompt, **keywords}, MODELS).pictures
    assert found is not None
    return found


def refusal(prompt: Any = "a cat", **keywords: Any) -> str:
    with pytest.raises(RequestError) as error:
        resolve({"prompt": prompt, **keywords}, MODELS)
    return str(error.value)


def test_default_strengths_are_diffusers() -> None:
    for pipeline, strength in (
        (StableDiffusionXLImg2ImgPipeline, STRENGTH),
        (StableDiffusionXLInpaintPipeline, MASKED_STRENGTH),
    ):
        assert inspect.signature(pipeline.__call__).parameters["strength"].default == strength
    assert given(image=landscape(64, 64)).strength == STRENGTH
    assert given(image=landscape(64, 64), mask_image=window(64, 64)).strength == MASKED_STRENGTH


@pytest.mark.parametrize(
    ("asked", "made"),
    [({}, (64, 96)), ({"width": 48}, (32, 48)), ({"height": 128, "width": 32}, (128, 32))],
    ids=["its own", "one side", "both"],
)
def test_the_picture_s_size_is_what_is_made(asked: dict[str, int], made: tuple[int, int]) -> None:
    request = resolve({"prompt": "", "image": landscape(101, 70), **asked}, MODELS)
    assert (request.height, request.width) == made
    assert request.original_size == request.target_size == made
    assert request.pictures is not None
    assert request.pictures.pictures[0].shape == (*made, 3)


def test_one_picture_for_each_prompt_and_each_picture_its_own() -> None:
    images = [landscape(64, 64, seed) for seed in (1, 2)]
    request = resolve({"prompt": ["a", "b"], "num_images_per_prompt": 2, "image": images, "seed": 1}, MODELS)
    assert request.pictures is not None
    for index in range(4):
        alone = request.picture(index).pictures
        assert alone is not None
        assert np.array_equal(alone.pictures[0], np.asarray(images[index // 2]))
        assert alone.digests == (request.pictures.digests[index // 2],)
    batch = np.stack([np.asarray(image) for image in images])
    assert given(["a", "b"], image=batch).digests == request.pictures.digests


def test_a_digest_is_of_the_pixels_alone() -> None:
    image = landscape(64, 64)
    assert given(image=image).digests == given(image=np.asarray(image), width=128).digests
    assert given(image=image).digests != given(image=image.transpose(Image.Transpose.ROTATE_90)).digests


def test_latents_are_taken_as_they_are_even_without_an_encoder() -> None:
    latents = np.random.default_rng(0).standard_normal((1, 4, 8, 12))
    request = resolve({"prompt": "", "image": latents, "denoising_start": 0.8}, WITHOUT)
    assert (request.height, request.width) == (64, 96)
    assert request.pictures is not None
    assert request.pictures.latents is not None
    assert request.pictures.latents.dtype == np.float32
    assert request.pictures.denoising_start == 0.8


def test_a_mask_is_white_from_a_half_on_and_has_one_number_for_each_latent() -> None:
    mask = np.zeros((64, 64), np.float32)
    mask[8:16, 16:24], mask[32:40, 0:8], mask[0, 0] = 0.5, 0.49, 1
    found = given(image=landscape(64, 64), mask_image=mask).latent_masks(8)
    assert found.shape == (1, 1, 8, 8)
    assert np.argwhere(found[0, 0]).tolist() == [[0, 0], [1, 2]]


def test_blur_softens_the_mask_before_that() -> None:
    hard, soft = (given(image=landscape(64, 64), mask_image=window(64, 64), mask_blur=b) for b in (0, 4))
    assert set(np.unique(hard.masks[0])) == {0, 1}
    assert len(np.unique(soft.masks[0])) > 10
    assert hard.mask_digests == soft.mask_digests


IMAGE: dict[str, Any] = {"image": landscape(64, 48)}
MASKED = IMAGE | {"mask_image": window(64, 48)}


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"strength": 0.5}, "strength was given without a picture; give image too"),
        ({"mask_image": window(8, 8)}, "mask_image was given without a picture"),
        ({"denoising_start": 0.5}, "denoising_start was given without a picture"),
        ({"mask_blur": 3.0}, "mask_blur counts with mask_image alone; give it and image"),
        (IMAGE | {"paste_back": True}, "paste_back counts with mask_image alone; give it, or"),
        (IMAGE | {"padding_mask_crop": 0}, "padding_mask_crop counts with mask_image alone"),
        (MASKED | {"padding_mask_crop": -1}, "padding_mask_crop is -1; it must be 0 to 8192"),
        (MASKED | {"padding_mask_crop": 1.5}, "padding_mask_crop is 1.5; give a whole number"),
        (MASKED | {"padding_mask_crop": 8, "output_type": "latent"}, "which latents are not"),
        (IMAGE | {"strength": 1.5}, "strength is 1.5; it must be 0 to 1"),
        (IMAGE | {"strength": "much"}, "strength is 'much'; give a number"),
        (IMAGE | {"strength": 0.5, "denoising_start": 0.5}, "both say where to begin"),
        (IMAGE | {"denoising_start": 1.0}, "denoising_start is 1; it must be above 0 and below 1"),
        (IMAGE | {"mask_image": window(64, 56)}, "mask_image is 64x56 and image 64x48; give them in one size"),
        (IMAGE | {"mask_image": np.zeros((48, 64))}, "has no white, so nothing would be painted"),
        (MASKED | {"mask_blur": -1.0}, "mask_blur is -1; it must be 0 to 256"),
        (MASKED | {"paste_back": "yes"}, "paste_back is 'yes'; give True or False"),
        ({"image": [landscape(8, 8)] * 2}, "image is a list of 2 for 1 prompts; give one for each"),
        ({"image": []}, "image is a list of 0 for 1 prompts"),
        ({"image": "cat.png"}, "open it with PIL.Image.open"),
        ({"image": landscape(9000, 16)}, "width is 9000; it must be 8 to 8192"),
        ({"image": np.zeros((1, 4, 8, 8), np.int64)}, "array of latents, and these must be finite floats"),
        ({"image": np.full((1, 4, 8, 8), np.nan)}, "must be finite floats"),
        ({"image": np.zeros((1, 4, 8, 8)), "width": 128}, "latents for 64x64, and 128x64 was asked for"),
        ({"base": False}, "leaves the work on a picture to the refiner; give image"),
        (IMAGE | {"base": False, "refiner": False}, "leaves the work on a picture to the refiner"),
        (IMAGE | {"hires_scale": 2.0}, "hires_scale is for pictures out of a prompt"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "-".join(value),
)
def test_what_does_not_fit_is_one_clear_error(keywords: dict[str, Any], words: str) -> None:
    assert words in refusal(**keywords)


def test_pictures_of_several_sizes_need_one_to_make() -> None:
    images = [landscape(64, 64), landscape(64, 48)]
    assert "several sizes; give width and height" in refusal(["a", "b"], image=images)
    assert given(["a", "b"], image=images, width=64, height=64).count == 2


def test_an_engine_without_an_encoder_says_so() -> None:
    with pytest.raises(RequestError, match="this engine has no VAE encoder, which image needs; build it again"):
        resolve({"prompt": "", **IMAGE}, WITHOUT)


def test_a_part_alone_is_made_at_the_native_size_or_what_is_asked_for_and_put_back_into_the_whole() -> None:
    options = MASKED | {"prompt": "a cat", "padding_mask_crop": 4, "mask_blur": 1.0}
    native, asked = (resolve({**options, **size}, MODELS) for size in ({}, {"width": 64, "height": 72}))
    assert (native.height, native.width) == (MODELS.native_size, MODELS.native_size)
    assert (asked.height, asked.width) == (72, 64)
    for request in (native, asked):
        assert request.made == (48, 64)
        assert request.pictures is not None
        shown = (*request.pictures.pictures, *request.pictures.masks)
        assert {picture.shape[:2] for picture in shown} == {(request.height, request.width)}
        (crop,) = request.pictures.crops
        assert crop.region.of(crop.mask).sum() == crop.mask.sum()
        assert len(np.unique(crop.mask)) > 2, "blurred before it is cut out"


def test_each_mask_of_a_picture_has_its_own_part() -> None:
    masks = [np.zeros((48, 64)) for _ in range(2)]
    masks[0][:8, :8] = 1
    masks[1][40:, 56:] = 1
    found = given(["a", "b"], image=landscape(64, 48), mask_image=masks, padding_mask_crop=0)
    assert [(crop.region.left, crop.region.top) for crop in found.crops] == [(0, 0), (56, 40)]
    second = found.at(1, 2)
    assert second.crops == found.crops[1:]
    assert second.pictures[0] is found.pictures[1]


def test_what_has_no_part_to_put_back_is_one_clear_error() -> None:
    mask = np.ones((64, 64))
    assert "image is of latents" in refusal(image=np.zeros((1, 4, 8, 8)), mask_image=mask, padding_mask_crop=8)
    several = {"image": [landscape(64, 64), landscape(72, 64)], "mask_image": [mask, np.ones((64, 72))]}
    assert "pictures of several sizes" in refusal(["a", "b"], padding_mask_crop=8, **several)
    hint = landscape(64, 64)
    assert "do not go together" in refusal(image=hint, mask_image=mask, padding_mask_crop=8, control_image=hint)
