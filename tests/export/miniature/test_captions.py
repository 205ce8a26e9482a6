"""The grammar of captions."""

import pytest

from pocketxl.export.miniature import captions


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("robot", "a robot"),
        ("owl", "an owl"),
        ("unicorn", "a unicorn"),
        ("umbrella", "an umbrella"),
        ("hourglass done", "an hourglass done"),
        ("grapes", "grapes"),
        ("french fries", "french fries"),
        ("bus", "a bus"),
        ("octopus", "an octopus"),
        ("smiling face with sunglasses", "a smiling face with sunglasses"),
    ],
)
def test_articles(name: str, expected: str) -> None:
    assert captions.with_article(name) == expected


def test_one_object() -> None:
    assert captions.one("red apple", "blue") == "a red apple on a blue background"
    assert captions.one("owl", "orange") == "an owl on an orange background"
    assert captions.one("owl", "orange", "small") == "a small owl on an orange background"


def test_two_objects_say_the_same_from_either_side() -> None:
    assert captions.two("robot", "owl", "red") == "a robot to the left of an owl on a red background"
    assert captions.two("robot", "owl", "red", mirrored=True) == "an owl to the right of a robot on a red background"
