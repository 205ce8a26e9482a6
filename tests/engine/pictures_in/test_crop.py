"""The part of a picture around a mask, against diffusers' `VaeImageProcessor`."""

import numpy as np
import pytest
from diffusers.image_processor import VaeImageProcessor
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from pocketxl.engine.pictures_in.crop import Crop, Region, filled, region_of

from ...fixtures.painters import landscape

THEIRS = VaeImageProcessor(vae_scale_factor=8)


@settings(deadline=None, max_examples=60)
@given(
    tall=st.integers(1, 90), wide=st.integers(1, 90), data=st.data(), padding=st.integers(0, 40),
    height=st.sampled_from([8, 64, 96, 128]), width=st.sampled_from([8, 64, 72, 256]),
)  # fmt: skip
def test_the_region_is_diffusers(
    tall: int, wide: int, data: st.DataObject, padding: int, height: int, width: int
) -> None:
    (top, bottom), (left, right) = (
        sorted(data.draw(st.tuples(st.integers(0, side - 1), st.integers(0, side - 1)))) for side in (tall, wide)
    )
    mask = np.zeros((tall, wide), np.uint8)
    mask[top : bottom + 1, left : right + 1] = data.draw(st.integers(1, 255))
    region = region_of((mask / 255).astype(np.float32), height, width, padding)
    theirs = THEIRS.get_crop_region(Image.fromarray(mask), width, height, pad=padding)
    assert (region.left, region.top, region.right, region.bottom) == theirs
    part = region.of(mask)
    assert part.size
    assert part.sum() == mask.sum(), "all that is white is in it"


@settings(deadline=None, max_examples=40)
@given(
    tall=st.integers(2, 80), wide=st.integers(2, 80), height=st.sampled_from([8, 40, 64]),
    width=st.sampled_from([8, 48, 104]),
)  # fmt: skip
@example(tall=80, wide=20, height=64, width=48)
@example(tall=20, wide=80, height=64, width=48)
@pytest.mark.parametrize("grey", [False, True])
def test_a_part_is_brought_to_the_size_as_diffusers_does(
    grey: bool, tall: int, wide: int, height: int, width: int
) -> None:
    if 0 in (wide * height // tall, tall * width // wide):
        return  # which Pillow has no pictures of, and diffusers no answer to
    picture = landscape(wide, tall)
    theirs = np.asarray(THEIRS.resize(picture.convert("L") if grey else picture, height, width, resize_mode="fill"))
    ours = filled(np.asarray(picture.convert("L") if grey else picture), height, width)
    assert np.array_equal(ours, theirs[:, :, 0] if grey else theirs)


@pytest.mark.parametrize(
    "region", [Region(left=10, top=6, right=50, bottom=38), Region(left=0, top=3, right=64, bottom=44)]
)
def test_what_was_made_is_put_back_as_diffusers_does(region: Region) -> None:
    own, made = landscape(64, 48), landscape(96, 72, seed=9)
    mask = np.zeros((48, 64), np.float32)
    mask[10:30, 15:45] = 1
    box = (region.left, region.top, region.right, region.bottom)
    grey = Image.fromarray((mask * 255).astype(np.uint8))
    theirs = np.asarray(THEIRS.apply_overlay(grey, own, made, box))
    crop = Crop(picture=np.asarray(own), mask=mask, region=region)
    assert np.array_equal((crop.pasted(np.asarray(made)) * 255).round().astype(np.uint8), theirs)
    outside = mask == 0
    assert np.array_equal(theirs[outside], np.asarray(own)[outside])
    soft = Crop(picture=np.asarray(own), mask=mask * np.float32(0.5), region=region).pasted(np.asarray(made))
    half = (crop.pasted(np.asarray(made)) + np.asarray(own, np.float32) / 255) / 2
    assert np.abs(soft - half).max() < 1e-6
