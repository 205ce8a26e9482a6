"""What counts as a picture or a mask, and what it comes to."""

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pocketxl.engine.errors import RequestError
from pocketxl.engine.pictures_in import values
from pocketxl.engine.pictures_in.values import mask_of, picture_of

RED = (255, 0, 0)


def coloured(mode: str = "RGB", size: tuple[int, int] = (3, 2)) -> Image.Image:
    return Image.new("RGB", size, RED).convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK", "YCbCr", "HSV", "RGBX"])
def test_a_picture_of_any_colours_is_rgb(mode: str) -> None:
    found = picture_of("image", coloured(mode))
    assert (found.dtype, found.shape) == (np.uint8, (2, 3, 3))
    assert np.abs(found.astype(int) - RED).max() <= 2  # CMYK and the like round


@pytest.mark.parametrize("mode", ["L", "LA", "1"])
def test_a_grey_picture_has_three_equal_channels(mode: str) -> None:
    found = picture_of("image", Image.new("L", (3, 2), 255).convert(mode))
    assert np.array_equal(found, np.full((2, 3, 3), 255, np.uint8))


def test_sixteen_bits_keep_their_depth() -> None:
    """As a file brings them: Pillow reads a 16-bit grey PNG as I;16, older ones as I."""
    grey = np.array([[0, 257, 65535]], np.uint16)
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "PNG")
    file.seek(0)
    found = picture_of("image", Image.open(file))
    assert found.dtype == np.float32
    assert np.allclose(found[0, :, 0], [0, 1 / 255, 1])
    assert np.allclose(found, picture_of("image", Image.fromarray(grey.astype(np.int32))))
    assert np.allclose(found, picture_of("image", grey))


def test_what_is_transparent_lies_on_white_and_in_a_mask_on_black() -> None:
    half = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    assert picture_of("image", half).min() == 255
    assert mask_of("mask_image", Image.new("RGBA", (2, 1), (255, 255, 255, 0))).max() == 0
    palette = Image.new("P", (2, 1), 0)
    palette.info["transparency"] = 0
    assert picture_of("image", palette).min() == 255


@pytest.mark.parametrize(("orientation", "shape"), [(1, (2, 3)), (3, (2, 3)), (6, (3, 2)), (8, (3, 2))])
def test_a_photograph_stands_as_it_was_held(orientation: int, shape: tuple[int, int]) -> None:
    image = coloured()
    image.getexif()[0x0112] = orientation
    file = io.BytesIO()
    image.save(file, "PNG", exif=image.getexif())
    file.seek(0)
    assert picture_of("image", Image.open(file)).shape[:2] == shape


@given(st.sampled_from([(4, 5), (4, 5, 1), (4, 5, 3)]), st.sampled_from(["uint8", "uint16", "float32", "float64"]))
def test_arrays_keep_what_they_say(shape: tuple[int, ...], dtype: str) -> None:
    white = {"uint8": 255, "uint16": 65535}.get(dtype, 1)
    found = picture_of("image", np.full(shape, white, dtype))
    assert found.shape == (4, 5, 3)
    assert found.dtype == (np.uint8 if dtype == "uint8" else np.float32)
    assert found.min() == (255 if dtype == "uint8" else 1)
    mask = mask_of("mask_image", np.full(shape, white, dtype))
    assert (mask.shape, mask.dtype) == ((4, 5), np.float32)
    assert mask == pytest.approx(1)


def test_a_mask_of_booleans() -> None:
    assert mask_of("mask_image", np.array([[True, False]])).tolist() == [[1, 0]]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("cat.png", r"image is the text 'cat.png'; open it with PIL.Image.open"),
        (3, r"image is <class 'int'>; give a PIL picture"),
        (np.zeros((3, 4, 5), np.uint8), r"of shape \(3, 4, 5\); give \(height, width, 3\)"),
        (np.zeros(3, np.uint8), r"of shape \(3,\)"),
        (np.zeros((0, 4, 3), np.uint8), r"of shape \(0, 4, 3\)"),
        (np.zeros((2, 2, 3), np.int64), "array of int64; give uint8, or floats in"),
        (np.full((2, 2, 3), 200.0), "numbers from 200 to 200; floats must be in"),
        (np.full((2, 2, 3), -0.1), "numbers from -0.1"),
        (np.full((2, 2, 3), np.nan), "numbers from nan"),
        (Image.new("F", (2, 2)), "Pillow's mode F"),
    ],
)
def test_anything_else_is_one_clear_error(value: Any, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        picture_of("image", value)


def test_a_picture_of_too_many_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "MOST_PIXELS", 100)
    for large in (Image.new("RGB", (11, 10)), np.zeros((10, 11, 3), np.uint8)):
        with pytest.raises(RequestError, match="image is 11x10, at most 100 pixels are taken"):
            picture_of("image", large)


def test_a_file_that_is_cut_off() -> None:
    file = io.BytesIO()
    Image.effect_noise((64, 64), 90).convert("RGB").save(file, "PNG")
    with pytest.raises(RequestError, match=r"image cannot be decoded \(.*\); give a whole picture"):
        picture_of("image", Image.open(io.BytesIO(file.getvalue()[:1000])))
