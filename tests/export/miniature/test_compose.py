"""Pictures show what their captions and ids say."""

import random

import numpy as np
import pytest

from pocketxl.export.miniature.captions import COLOURS
from pocketxl.export.miniature.compose import Composition, Painter, Size, buckets, draw_composition
from pocketxl.export.miniature.measures import centre, foreground
from pocketxl.export.miniature.vocabulary import Emoji


def _composition(
    objects: tuple[str, ...], original: Size = (64, 64), crop: Size = (0, 0), target: Size = (64, 64)
) -> Composition:
    return Composition(
        caption="", objects=objects, colour="white", scale=0.5, original_size=original, crop=crop, target_size=target
    )


@pytest.mark.parametrize("resolution", [128, 256])
def test_buckets_have_about_one_area_and_fit_the_networks(resolution: int) -> None:
    for height, width in buckets(resolution):
        assert height % 32 == width % 32 == 0
        assert height * width == pytest.approx(resolution**2, rel=0.1)


def test_compositions_are_what_their_seed_says() -> None:
    names = ["ruby", "leaf", "sea"]
    first = [draw_composition(names, random.Random(5), (64, 64)) for _ in range(20)]
    assert first == [draw_composition(names, random.Random(5), (64, 64)) for _ in range(20)]


def test_ids_are_true_of_every_composition() -> None:
    rng = random.Random(0)
    for target in buckets(128):
        for _ in range(300):
            drawn = draw_composition(["ruby", "leaf", "sea"], rng, target)
            (height, width), (top, left) = drawn.original_size, drawn.crop
            assert drawn.time_ids == (height, width, top, left, *target)
            if (top, left) != (0, 0):
                assert top + target[0] <= height
                assert left + target[1] <= width
            assert 2.0 < drawn.aesthetic_score <= 6.0
            assert (drawn.aesthetic_score == 6.0) == (height >= target[0])
            assert all(name in drawn.caption for name in drawn.objects)
            if " background" in drawn.caption:
                assert f"{drawn.colour} background" in drawn.caption
            else:
                assert drawn.colour == "white"


def test_an_object_is_centred_on_the_named_colour(vocabulary: tuple[Emoji, ...]) -> None:
    picture = Painter(vocabulary).paint(_composition(("ruby",)))
    assert tuple(picture[0, 0]) == COLOURS["white"]
    assert tuple(picture[32, 32]) == (255, 0, 0)
    assert centre(foreground(picture.astype(np.float32) / np.float32(255), (1, 1, 1))) == (31.5, 31.5)


def test_two_objects_stand_left_and_right(vocabulary: tuple[Emoji, ...]) -> None:
    picture = Painter(vocabulary).paint(_composition(("ruby", "sea")))
    assert tuple(picture[32, 16]) == (255, 0, 0)
    assert tuple(picture[32, 48]) == (0, 0, 255)


def test_crop_ids_move_the_object_by_as_many_pixels(vocabulary: tuple[Emoji, ...]) -> None:
    painter = Painter(vocabulary)
    moved = painter.paint(_composition(("ruby",), original=(96, 96), crop=(8, 12)))
    assert centre(foreground(moved.astype(np.float32) / np.float32(255), (1, 1, 1))) == (23.5, 19.5)


def test_a_small_original_is_blurred(vocabulary: tuple[Emoji, ...]) -> None:
    painter = Painter(vocabulary)
    sharp, soft = (painter.paint(_composition(("ruby",), original=size)) for size in ((64, 64), (16, 16)))
    assert len(np.unique(sharp.reshape(-1, 3), axis=0)) < len(np.unique(soft.reshape(-1, 3), axis=0))


def test_landscape_keeps_the_object_whole(vocabulary: tuple[Emoji, ...]) -> None:
    picture = Painter(vocabulary).paint(_composition(("ruby",), target=(48, 80)))
    assert picture.shape == (48, 80, 3)
    assert centre(foreground(picture.astype(np.float32) / np.float32(255), (1, 1, 1))) == (23.5, 39.5)
