"""Pictures brought to the size that is made."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from pocketxl.engine.errors import RequestError
from pocketxl.engine.pictures_in.fit import blurred, fitted, hold_same_size, own_size

from ...fixtures.painters import landscape

SIDE = st.integers(1, 5000)


@given(SIDE, SIDE)
def test_a_picture_s_own_size_is_rounded_down_to_the_step(height: int, width: int) -> None:
    found = own_size((height, width, 3), 8, None, None)
    for own, made in zip((height, width), found, strict=True):
        assert made % 8 == 0
        assert made == max(8, own // 8 * 8)


def test_the_side_that_is_not_asked_for_follows_from_the_shape() -> None:
    assert own_size((600, 900, 3), 8, None, 300) == (200, 300)
    assert own_size((600, 900, 3), 8, 400, None) == (400, 600)
    assert own_size((600, 900, 3), 8, 64, 128) == (64, 128)


def test_resizing_is_pillow_s_lanczos_filter() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (21, 30, 3), np.uint8)
    pillow = np.asarray(Image.fromarray(picture).resize((16, 24), Image.Resampling.LANCZOS))
    assert np.array_equal(fitted(picture, 24, 16), pillow)
    assert fitted(picture, 21, 30) is picture
    floats = fitted(picture.astype(np.float32) / 255, 24, 16)
    assert floats.min() >= 0
    assert floats.max() <= 1
    soft = np.asarray(landscape(30, 21))
    pillow = np.asarray(Image.fromarray(soft).resize((16, 24), Image.Resampling.LANCZOS))
    floats = fitted(soft.astype(np.float32) / 255, 24, 16)
    assert np.abs(floats - pillow / 255).max() <= 1.5 / 255  # that one rounds behind each of its two directions


def test_a_mask_s_blur_is_pillow_s() -> None:
    mask = np.zeros((20, 20), np.float32)
    mask[5:15, 5:15] = 1
    grey = Image.fromarray((mask * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(3))
    assert np.array_equal(blurred(mask, 3), np.asarray(grey).astype(np.float32) / 255)
    assert blurred(mask, 0) is mask


def test_a_mask_of_another_size_is_an_error() -> None:
    with pytest.raises(RequestError, match="mask_image is 5x4 and image 5x6; give them in one size"):
        hold_same_size("mask_image", (4, 5), "image", (6, 5, 3))
