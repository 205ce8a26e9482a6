import contextlib
import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketxl.engine.errors import RequestError
from pocketxl.engine.request.prompt import BREAK, WEIGHT_RANGE, escape, parse_prompt

from ...fixtures.growth import assert_linear

PIECES = st.lists(st.sampled_from([*"()[]\\:1.2 ab", "BREAK", " BREAK "]), max_size=12).map("".join)


@given(PIECES | st.text())
def test_escaped_text_is_taken_literally(text: str) -> None:
    assert parse_prompt(escape(text)) == [(text, 1.0)]


def test_escaping_leaves_alone_what_needs_none() -> None:
    assert escape(r"a\b: 1.2, c") == r"a\b: 1.2, c"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [("", 1.0)]),
        ("normal text", [("normal text", 1.0)]),
        ("an (important) word", [("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
        ("an [unimportant] word", [("an ", 1.0), ("unimportant", 0.909091), (" word", 1.0)]),
        (r"\(literal\] \[and\) \\", [("(literal] [and) \\", 1.0)]),
        ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
        ("((sky:1.3))", [("sky", 1.43)]),
        ("(a (b:0.5) c:2)", [("a ", 2.0), ("b", 1.0), (" c", 2.0)]),
        ("([x])", [("x", 1.0)]),
        ("(a [b) c]", [("a ", 1.1), ("b", 1.0), (" c", 0.909091)]),
        ("(a :  +1.25 )", [("a ", 1.25)]),
        ("(a:.5)", [("a", 0.5)]),
        ("(a:-1)", [("a", -1.0)]),
        ("(a:0)", [("a", 0.0)]),
        ("()", [("", 1.0)]),
        ("ratio 16:9, 5:30", [("ratio 16:9, 5:30", 1.0)]),
        (r"C:\path", [(r"C:\path", 1.0)]),
        ("trailing \\", [("trailing \\", 1.0)]),
        ("a BREAK b", [("a ", 1.0), BREAK, (" b", 1.0)]),
        ("BREAK", [BREAK]),
        ("(a BREAK BREAK b:2) BREAK", [("a ", 2.0), BREAK, (" ", 2.0), BREAK, (" b", 2.0), (" ", 1.0), BREAK]),
        (r"break, BREAKFAST, \BREAK, a_BREAK", [("break, BREAKFAST, BREAK, a_BREAK", 1.0)]),
        (r"a\\BREAK", [("a\\", 1.0), BREAK]),
    ],
)
def test_syntax(text: str, expected: list[tuple[str, float]]) -> None:
    assert parse_prompt(text) == expected


@pytest.mark.parametrize(
    "text", ["a (cat", "a cat)", ":)", ":(", "[", "]]", "b:1.2)", "(a:1.2.3", ")(", "(a:1.2.3)", "(a:..)"]
)
def test_brackets_without_a_partner_are_text(text: str) -> None:
    assert parse_prompt(text) == [(text, 1.0)]


def test_an_open_bracket_does_not_spoil_those_inside() -> None:
    assert parse_prompt("a ((b:1.5) c") == [("a (", 1.0), ("b", 1.5), (" c", 1.0)]


@pytest.mark.parametrize("text", ["(a:10.1)", "(a:-11)", "(" * 40 + "x" + ")" * 40, "(" * 10_000 + "x" + ")" * 10_000,
                                  "(a:" + "9" * 60 + ")"])  # fmt: skip
def test_weights_out_of_range(text: str) -> None:
    with pytest.raises(RequestError, match=r"prompt weight .* is outside -10 to 10"):
        parse_prompt(text)


Node = tuple[str, Any]
"""A kind with its text, or with the nodes inside."""

leaf = st.text(alphabet="ab ,:\\()[]é.1", min_size=1, max_size=6).map(lambda t: ("text", t))
tree = st.recursive(
    leaf,
    lambda inner: st.tuples(
        st.sampled_from(["round", "square", "0.5", "1.25", "-1"]), st.lists(inner, min_size=1, max_size=3)
    ),
    max_leaves=12,
)


def rendered(node: Node) -> str:
    kind, content = node
    if kind == "text":
        # Escaping every backslash and bracket; the space keeps a colon away from a closing bracket's number.
        return "".join("\\" + c if c in "\\()[]" else c for c in content) + "\\\\"
    inside = "".join(map(rendered, content))
    return {"round": f"({inside})", "square": f"[{inside}]"}.get(kind, f"({inside}:{kind})")


def characters(node: Node, weight: float = 1.0) -> list[tuple[str, float]]:
    kind, content = node
    if kind == "text":
        return [(c, weight) for c in content + "\\"]
    factor = {"round": 1.1, "square": 1 / 1.1}.get(kind) or float(kind)
    return [pair for child in content for pair in characters(child, weight * factor)]


@given(st.lists(tree, min_size=1, max_size=4))
def test_nested_weights_multiply(nodes: list[Node]) -> None:
    expected = [pair for node in nodes for pair in characters(node)]
    parsed = [(c, weight) for text, weight in parse_prompt("".join(map(rendered, nodes))) for c in text]
    assert [c for c, _ in parsed] == [c for c, _ in expected]
    assert [w for _, w in parsed] == pytest.approx([w for _, w in expected], abs=1e-6)


@given(st.text(alphabet=st.sampled_from("()[]:\\1.9- ab\n"), max_size=200))
def test_any_text_gives_finite_weights_or_one_clear_error(text: str) -> None:
    try:
        pieces = parse_prompt(text)
    except RequestError:
        return
    assert all(math.isfinite(w) and WEIGHT_RANGE[0] <= w <= WEIGHT_RANGE[1] for _, w in pieces)
    assert all(a[1] != b[1] for a, b in itertools.pairwise(pieces)), "runs of equal weight are merged"


@given(st.text(alphabet=st.characters(exclude_characters="()[]\\"), max_size=100))
def test_text_without_brackets_is_left_alone(text: str) -> None:
    assert parse_prompt(text) == [(text, 1.0)]


@pytest.mark.parametrize(
    "unit", ["(", ")", "()", "(a", "(a:1)", ":", ": ", ":1", "\\", "[", "]", "([)]", "a", "(:", ":1 ", ":1.", "(a:1"]
)
def test_hostile_text_takes_linear_time(unit: str) -> None:
    def work(size: int) -> None:
        with contextlib.suppress(RequestError):
            parse_prompt(unit * (size // len(unit)))

    assert_linear(work, 10_000)


@pytest.mark.parametrize(("start", "unit", "end"), [(":", " ", ""), (":", "1", ""), ("(a:", "1", ")")])
def test_one_megabyte_of_one_token(start: str, unit: str, end: str) -> None:
    def work(size: int) -> None:
        assert parse_prompt(start + unit * size + end)[0][1] == 1.0

    assert_linear(work, 100_000)
