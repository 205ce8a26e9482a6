"""What the figures of the model card mean."""

import numpy as np
import pytest

from pocketxl.export.miniature import evaluate, measures
from pocketxl.export.miniature.captions import COLOURS
from pocketxl.export.miniature.compose import Composition, Painter
from pocketxl.export.miniature.evaluate import Request
from pocketxl.export.miniature.measures import Pictures
from pocketxl.export.miniature.vocabulary import Emoji

NAMES = ("ruby", "leaf", "sea")


def _picture(painter: Painter, prompt: str, height: int, width: int) -> Pictures:
    """What a perfect model would make of a prompt."""
    subject, colour = prompt.removesuffix(" background").split(" on a")
    objects = tuple(part.removeprefix("a ").removeprefix("an ") for part in subject.split(" to the left of "))
    composition = Composition(
        caption=prompt, objects=objects, colour=colour.removeprefix("n").strip(),
        scale=0.9 if len(objects) == 1 else 0.85,
        original_size=(height, width), crop=(0, 0), target_size=(height, width),
    )  # fmt: skip
    return painter.paint(composition).astype(np.float32) / np.float32(255)


def _perfect(painter: Painter):  # type: ignore[no-untyped-def]
    return lambda request: np.stack([_picture(painter, p, request.height, request.width) for p in request.prompts])


def test_a_perfect_model_scores_one(vocabulary: tuple[Emoji, ...]) -> None:
    painter = Painter(vocabulary)
    records = evaluate.obedience(_perfect(painter), painter, NAMES, 64, count=12)
    records += evaluate.pairs(_perfect(painter), painter, NAMES, 64, count=12)
    assert {record.value for record in records if record.metric == "share_right"} == {1.0}


def test_a_blind_model_scores_near_chance(vocabulary: tuple[Emoji, ...]) -> None:
    painter = Painter(vocabulary)
    perfect = _perfect(painter)

    def blind(request: Request) -> Pictures:
        return np.repeat(perfect(Request(prompts=("a ruby on a red background",), height=64, width=64)), 12, 0)

    by_case = {record.case: record.value for record in evaluate.obedience(blind, painter, NAMES, 64, count=12)}
    assert by_case["base_and_refiner_background"] == pytest.approx(1 / 12)
    assert by_case["base_and_refiner_object"] < 0.7


def test_prompts_never_change() -> None:
    names = [f"thing {index}" for index in range(300)]
    assert evaluate.single_prompts(names, 3) == evaluate.single_prompts(names, 200)[:3]
    assert len({name for name, _ in evaluate.single_prompts(names, 200)}) == 200


@pytest.mark.parametrize("name", COLOURS)
def test_colours_are_told_apart(name: str) -> None:
    assert measures.nearest_colour(np.array(COLOURS[name]) / 255 + 0.02) == name


def test_psnr_of_a_known_error() -> None:
    zeros = np.zeros((1, 4, 4, 3), np.float32)
    assert measures.psnr_db(zeros + np.float32(0.1), zeros)[0] == pytest.approx(20, abs=1e-4)


def test_blur_lowers_sharpness() -> None:
    noise = np.random.default_rng(0).random((32, 32, 3), np.float32)
    assert measures.sharpness(measures.reduce(noise, 16)) < measures.sharpness(noise)


def test_an_object_at_the_edge_is_not_whole() -> None:
    mask = np.zeros((8, 8), bool)
    mask[2:5, 2:5] = True
    assert not measures.touches_edge(mask)
    mask[0, 3] = True
    assert measures.touches_edge(mask)
