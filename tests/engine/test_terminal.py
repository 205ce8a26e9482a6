import io
import re
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketxl.engine.terminal import prepare_streams, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a red apple, naïve 図 👩‍🚀\tx", "a red apple, naïve 図 👩‍🚀\tx"),
        ("\x1b]0;title\x07\x1b[31m", r"\x1b]0;title\x07\x1b[31m"),
        ("\x9b31m\x7f\x00", r"\x9b31m\x7f\x00"),
        ("a\rb\nc", r"a\rb\nc"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("a\u2028b\udcff", r"a\u2028b\udcff"),
    ],
)
def test_what_steers_a_terminal_becomes_an_escape(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(alphabet=st.characters()))
def test_no_text_keeps_a_control_character(text: str) -> None:
    for lines in (False, True):
        shown = printable(text, lines=lines)
        kept = {c for c in shown if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")}
        assert kept <= ({"\t", "\n"} if lines else {"\t"})
        assert not re.search("[\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069]", shown)
        assert printable(shown, lines=lines) == shown


def test_a_stream_of_few_characters_takes_any_text(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="cp1252"))
    prepare_streams()
    sys.stdout.write("é 図")
    sys.stdout.flush()
    assert raw.getvalue() == b"\xe9 \\u56f3"
