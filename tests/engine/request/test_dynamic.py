"""Templates: what chance makes of them is settled by the seed, and what is in pictures is what came out."""

from pathlib import Path
from typing import Any

import pytest

from pocketxl.engine.errors import RequestError
from pocketxl.engine.folder.manifest import read_manifest
from pocketxl.engine.miniature import FOLDER
from pocketxl.engine.picture.infotext import parse, write
from pocketxl.engine.picture.parameters import describe, keywords
from pocketxl.engine.request.dynamic import Dynamic
from pocketxl.engine.request.request import ResolvedRequest
from pocketxl.engine.request.resolve import resolve

TEMPLATE = "a {red|blue|green} __animal__, __sub/place__"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "animal.txt").write_text("cat\n\ndog\n# a comment\nowl\n")
    (tmp_path / "sub" / "place.txt").write_text("in {Rome|Paris}\n")
    (tmp_path / "loop.txt").write_text("again __loop__\n")
    return tmp_path


def checked(prompt: Any, **options: Any) -> ResolvedRequest:
    return resolve({"prompt": prompt, **options}, read_manifest(FOLDER).models)


def prompts(request: ResolvedRequest) -> list[str]:
    return [prompt.prompt.given for prompt in request.prompts]


def test_one_of_each_is_chosen_by_the_seed(folder: Path) -> None:
    found = [Dynamic(folder=folder).expand(TEMPLATE, seed) for seed in range(40)]
    assert found == [Dynamic(folder=folder).expand(TEMPLATE, seed) for seed in range(40)]
    colours = {prompt.split()[1] for prompt in found}
    animals = {prompt.split()[2] for prompt in found}
    assert (colours, animals) == ({"red", "blue", "green"}, {"cat,", "dog,", "owl,"})
    assert {prompt.split()[-1] for prompt in found} == {"Rome", "Paris"}


def test_what_has_no_choice_stays_to_the_letter() -> None:
    assert Dynamic().expand("a # b // c $x %y [a|b] (c:1.2)", 1) == "a # b // c $x %y [a|b] (c:1.2)"


def test_each_picture_has_its_own_by_its_seed(folder: Path) -> None:
    options: dict[str, Any] = {"wildcard_folder": folder, "negative_prompt": "{a|b|c}"}
    four = checked([TEMPLATE, "a cat"], seed=7, num_images_per_prompt=2, **options)
    assert prompts(four) == [*(Dynamic(folder=folder).expand(TEMPLATE, seed) for seed in (7, 8)), "a cat", "a cat"]
    assert [prompt.template for prompt in four.prompts] == [TEMPLATE, TEMPLATE, None, None]
    assert four.num_images_per_prompt == 1
    assert four.picture(1).prompts[0] == checked(TEMPLATE, seed=8, **options).prompts[0]


def test_a_picture_tells_what_came_out_and_makes_it_again(folder: Path) -> None:
    request = checked(TEMPLATE, seed=3, negative_prompt="{x, y|z}", wildcard_folder=str(folder), refiner=False)
    settings = parse(write(describe(request, 0, model="m", version="0")))
    assert settings["Template"] == TEMPLATE
    assert settings["Negative Template"] == "{x, y|z}"
    again = checked(**keywords(settings))
    assert prompts(again) == prompts(request)
    assert again.prompts[0].negative_prompt == request.prompts[0].negative_prompt


def test_braces_are_words_where_nothing_else_is_asked_for() -> None:
    assert prompts(checked("a {b|c} __d__")) == ["a {b|c} __d__"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"prompt": "a __nope__"}, "__nope__ is no wildcard; .* has animal, loop, sub/place"),
        ({"prompt": "a __animal__", "wildcard_folder": None}, "name the folder of their files with wildcard_folder"),
        ({"prompt": "a __../animal__"}, "is no wildcard"),
        ({"prompt": "__loop__"}, "leads back to itself"),
        ({"prompt": "a {b"}, "'a {b' is no template"),
        ({"prompt": "${x}"}, "is no template"),
        ({"prompt": 7}, "prompt is 7; give a"),
        ({"prompt": "a", "negative_prompt": 7}, "negative_prompt is 7; give a"),
        ({"prompt": "a", "literal": True}, "literal and dynamic were both given"),
        ({"prompt": "a", "wildcard_folder": "/no/where"}, "wildcard_folder /no/where is no folder"),
        ({"prompt": "a", "wildcard_folder": 3}, "wildcard_folder is 3; give the path"),
        ({"prompt": "a", "dynamic": "yes"}, "dynamic is 'yes'; give True or False"),
    ],
)
def test_what_cannot_be_is_told(folder: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        checked(**{"wildcard_folder": folder, "dynamic": True, **options})
