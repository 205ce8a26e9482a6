"""`--lora`: what is the file and what its weight."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketxl.engine.commands.lora import loras_of
from pocketxl.engine.errors import RequestError


@pytest.mark.parametrize(
    ("text", "file", "weight"),
    [
        ("style.safetensors:0.8", "style.safetensors", 0.8),
        ("style.safetensors", "style.safetensors", 1.0),
        ("a/b:c/style.safetensors:-1", "a/b:c/style.safetensors", -1.0),
        (r"C:\loras\style.safetensors", r"C:\loras\style.safetensors", 1.0),
        (r"C:\loras\style.safetensors:.5", r"C:\loras\style.safetensors", 0.5),
    ],
)
def test_the_last_colon_before_a_number_parts_them(text: str, file: str, weight: float) -> None:
    assert loras_of([text]) == {file: weight}


@given(st.text(min_size=1), st.floats(-10, 10))
def test_what_was_written_is_read(file: str, weight: float) -> None:
    assert loras_of([f"{file}:{weight!r}"]) == {file: weight}


def test_a_file_twice_and_a_weight_alone_are_errors() -> None:
    with pytest.raises(RequestError, match="twice"):
        loras_of(["a.safetensors:1", "a.safetensors:0.5"])
    with pytest.raises(RequestError, match="names no file"):
        loras_of([":0.5"])
