"""Edges as OpenCV's `Canny` defines them: held to that definition written out pixel by pixel, and to scikit-image."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from skimage.feature import canny as other_canny

from pocketxl.engine.hints.canny import HIGH, LOW, canny

Grid = list[list[int]]


def by_definition(grey: np.ndarray, low: int, high: int) -> np.ndarray:
    """OpenCV's documentation and source, a pixel at a time."""
    height, width = grey.shape
    x = [[0] * width for _ in range(height)]
    y = [[0] * width for _ in range(height)]

    def at(row: int, column: int) -> int:
        return int(grey[min(max(row, 0), height - 1), min(max(column, 0), width - 1)])

    for i in range(height):
        for j in range(width):
            x[i][j] = sum(w * (at(i + d, j + 1) - at(i + d, j - 1)) for d, w in ((-1, 1), (0, 2), (1, 1)))
            y[i][j] = sum(w * (at(i + 1, j + d) - at(i - 1, j + d)) for d, w in ((-1, 1), (0, 2), (1, 1)))

    def size(i: int, j: int) -> int:
        return abs(x[i][j]) + abs(y[i][j]) if 0 <= i < height and 0 <= j < width else 0

    candidates = set()
    for i in range(height):
        for j in range(width):
            here = size(i, j)
            if here <= low:
                continue
            angle = math.degrees(math.atan2(abs(y[i][j]), abs(x[i][j])))
            if angle < 22.5:
                kept = here > size(i, j - 1) and here >= size(i, j + 1)
            elif angle > 67.5:
                kept = here > size(i - 1, j) and here >= size(i + 1, j)
            else:
                side = -1 if (x[i][j] < 0) != (y[i][j] < 0) else 1
                kept = here > size(i - 1, j - side) and here > size(i + 1, j + side)
            if kept:
                candidates.add((i, j))
    waiting = [place for place in candidates if size(*place) > high]
    found = set(waiting)
    while waiting:
        i, j = waiting.pop()
        for place in ((i + a, j + b) for a in (-1, 0, 1) for b in (-1, 0, 1)):
            if place in candidates - found:
                found.add(place)
                waiting.append(place)
    picture = np.zeros((height, width), np.uint8)
    for place in found:
        picture[place] = 255
    return picture


@settings(deadline=None, max_examples=60)
@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)), st.integers(0, 300))
def test_it_is_opencv_s_definition(grey: np.ndarray, low: int) -> None:
    assert (canny(grey, low, low + 100)[..., 0] == by_definition(grey, low, low + 100)).all()


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32))
def test_the_same_on_smooth_pictures_whose_edges_are_long(seed: int) -> None:
    random = np.random.default_rng(seed)
    down, across = np.mgrid[:24, :24]
    wave = np.sin(down * random.uniform(0.1, 0.6) + across * random.uniform(0.1, 0.6)) * random.uniform(20, 127)
    grey = (127 + wave).astype(np.uint8)
    found = canny(grey, 30, 90)[..., 0]
    assert (found == by_definition(grey, 30, 90)).all()


def test_a_shape_has_a_closed_outline_one_pixel_wide_where_scikit_image_has_it_too() -> None:
    down, across = np.mgrid[:64, :64]
    disc = np.where(np.hypot(down - 31, across - 33) < 18, 220, 20).astype(np.uint8)
    ours, theirs = canny(disc)[..., 0] > 0, other_canny(disc, sigma=1.0)
    assert 80 < ours.sum() < 160  # of a circumference of 113
    far = np.linalg.norm(np.argwhere(ours)[:, None] - np.argwhere(theirs)[None], axis=2)
    assert far.min(axis=1).max() < 2


def test_of_several_colours_the_strongest_counts() -> None:
    picture = np.zeros((16, 16, 3), np.uint8)
    picture[:, 8:, 1] = 255
    assert (canny(picture) == canny(picture[..., 1])).all()
    picture[8:, :, 0] = 255
    assert canny(picture)[8 - 1 : 9].any()


def test_white_edges_on_black_of_the_same_size_and_nothing_on_a_plain_picture() -> None:
    picture = np.zeros((20, 30, 3), np.uint8)
    assert not canny(picture).any()
    picture[:, 15:] = 255
    found = canny(picture)
    assert found.shape == picture.shape
    assert set(np.unique(found)) == {0, 255}


@pytest.mark.parametrize("step", [LOW // 8, HIGH // 2])
def test_what_is_too_faint_is_no_edge(step: int) -> None:
    picture = np.zeros((20, 20), np.uint8)
    picture[:, 10:] = step  # Sobel's derivative is four times the step
    assert canny(picture).any() == (4 * step > HIGH)
