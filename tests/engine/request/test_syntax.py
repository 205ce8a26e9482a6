import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketxl.engine.request.syntax import unsupported_syntax

from ...fixtures.growth import assert_linear


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("a cat, (red:1.2) [sky] [[deep]] \\[a:b:0.5\\]", []),
        ("break and BREAKFAST, candy AND, BAND", ["AND"]),
        ("a [cat:dog:0.5] [cow|horse] BREAK [a::.3]", []),
        ("<lora:add_detail:0.8>, <3, a<b>c", ["<lora:add_detail:0.8>"]),
        ("{red|blue} {} {a} __colour__ snake__case", ["{red|blue}", "__colour__"]),
        ("embedding:easynegative", ["embedding:easynegative"]),
        ("{" + "x" * 50 + "|y}", ["{" + "x" * 38 + "…"]),
    ],
)
def test_what_other_programs_would_understand(prompt: str, parts: list[str]) -> None:
    assert unsupported_syntax(prompt) == parts


@given(st.text(alphabet="[]{}<>|:\\_ aAND1.\n", max_size=100))
def test_any_text_is_read(prompt: str) -> None:
    assert all(len(part) <= 40 for part in unsupported_syntax(prompt))


@pytest.mark.parametrize("part", ["[", "{a|", "<a:", "__a", "[a:b:", "embedding:", "{|", "_", "AND "])
def test_hostile_text_takes_linear_time(part: str) -> None:
    assert_linear(lambda size: unsupported_syntax(part * (size // len(part))), 4_000)
