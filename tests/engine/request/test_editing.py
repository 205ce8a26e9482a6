"""Which text holds when: AUTOMATIC1111's own examples, and what its grammar leaves alone."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketxl.engine.errors import RequestError
from pocketxl.engine.request.editing import MOST_CHANGES, prompt_schedule
from pocketxl.engine.request.prompt import escape

from ...fixtures.growth import assert_linear

LANDSCAPE = (
    "fantasy landscape with a [mountain:lake:0.25] and [an oak:a christmas tree:0.75][ in foreground::0.6]"
    "[ in background:0.25] [shoddy:masterful:0.5]"
)


@pytest.mark.parametrize(
    ("text", "schedule"),
    [
        ("test", [(10, "test")]),
        ("a [b:3]", [(3, "a "), (10, "a b")]),
        ("a [b: 3]", [(3, "a "), (10, "a b")]),
        ("a [[[b]]:2]", [(2, "a "), (10, "a [[b]]")]),
        ("[(a:2):3]", [(3, ""), (10, "(a:2)")]),
        ("a [b : c : 1] d", [(1, "a b  d"), (10, "a  c  d")]),
        ("a[b:[c:d:2]:1]e", [(1, "abe"), (2, "ace"), (10, "ade")]),
        ("a [unbalanced", [(10, "a [unbalanced")]),
        ("a [b:.5] c", [(5, "a  c"), (10, "a b c")]),
        ("a [{b|d{:.5] c", [(5, "a  c"), (10, "a {b|d{ c")]),
        ("((a][:b:c [d:3]", [(3, "((a][:b:c "), (10, "((a][:b:c d")]),
        ("[a|(b:1.1)]", [(step, ("a", "(b:1.1)")[(step - 1) % 2]) for step in range(1, 11)]),
        ("[fe|]male", [(step, ("female", "male")[(step - 1) % 2]) for step in range(1, 11)]),
        ("[fe|||]male", [(step, "female" if step % 4 == 1 else "male") for step in range(1, 11)]),
    ],
)
def test_the_examples_of_its_documentation(text: str, schedule: list[tuple[int, str]]) -> None:
    assert prompt_schedule(text, 10) == schedule


def test_the_example_of_its_wiki() -> None:
    assert prompt_schedule(LANDSCAPE, 100) == [
        (25, "fantasy landscape with a mountain and an oak in foreground shoddy"),
        (50, "fantasy landscape with a lake and an oak in foreground in background shoddy"),
        (60, "fantasy landscape with a lake and an oak in foreground in background masterful"),
        (75, "fantasy landscape with a lake and an oak in background masterful"),
        (100, "fantasy landscape with a lake and a christmas tree in background masterful"),
    ]


@pytest.mark.parametrize(
    ("text", "schedule"),
    [
        ("[a:b:1]", [(1, "a"), (4, "b")]),
        ("[a:b:1.0]", [(4, "a")]),
        ("[a:b:0]", [(4, "b")]),
        ("[a:b:-0.5]", [(4, "b")]),
        ("[a:b:9]", [(4, "a")]),
        ("[a:b:.26]", [(1, "a"), (4, "b")]),
        ("[a|[b:c:3]]", [(1, "a"), (2, "b"), (3, "a"), (4, "c")]),
        ("[[a|b]:c:2]", [(1, "a"), (2, "b"), (3, "c"), (4, "c")]),
    ],
)
def test_a_point_makes_a_share_and_all_nests(text: str, schedule: list[tuple[int, str]]) -> None:
    assert prompt_schedule(text, 4) == schedule


@pytest.mark.parametrize(
    "text",
    ["[a]", "[a:b]", "[a:b:c:0.5]", "[a:b:x]", "[(a:0.5]", "[a:(b):c:d:2]", "[x [a:b] y:2]", "a | b : 3", "(a|b)",
     "[(a|b):2]", "[a:[b]:[1]]", "12:30", "[]", "][", "[:"],
)  # fmt: skip
def test_what_is_no_editing_stays_as_it_is(text: str) -> None:
    assert prompt_schedule(text, 4) == [(4, text)]


@given(st.text(alphabet="[]():|\\ab.1 ", max_size=60), st.integers(1, 12))
def test_any_text_has_a_schedule_that_ends_with_the_steps(text: str, steps: int) -> None:
    ends = [end for end, _ in prompt_schedule(text, steps)]
    assert ends == sorted(set(ends))
    assert ends[0] >= 1
    assert ends[-1] == steps


@given(st.text(max_size=40))
def test_an_escaped_text_never_changes(text: str) -> None:
    assert prompt_schedule(escape(f"[{text}:b:2]"), 4) == [(4, escape(f"[{text}:b:2]"))]


def test_more_changes_than_anybody_writes_are_refused() -> None:
    prompt_schedule("[a|b]" * MOST_CHANGES, 2)
    with pytest.raises(RequestError, match="changes in more than 256 places; write fewer brackets"):
        prompt_schedule("[a|b]" * (MOST_CHANGES + 1), 2)


@pytest.mark.parametrize("part", ["[", "[a|", "(", "[a:", "]", "[[a:b:", "((a:1)[", "[:", "|", "[1", "[a:1e9", "\\["])
def test_hostile_text_takes_linear_time(part: str) -> None:
    def work(size: int) -> None:
        half = part * (size // 2 // len(part))
        with suppress(RequestError):  # for too many changes
            prompt_schedule(half + "]" * (size - len(half)), 1000)

    assert_linear(work, 4_000)
