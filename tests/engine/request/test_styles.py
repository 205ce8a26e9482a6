"""A styles file, well made and hostile, and what its styles do to a prompt."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketxl.engine.errors import IntegrityError, PocketXLError, RequestError, StorageError
from pocketxl.engine.request.styles import MOST_BYTES, MOST_STYLES, Style, find_styles, read_styles

SKETCH = Style(name="sketch", prompt="a sketch of {prompt}, rough", negative_prompt="photo")


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "styles.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(
    ("style", "given_", "expected"),
    [
        (SKETCH, ("a cat", "blurry"), ("a sketch of a cat, rough", "blurry, photo")),
        (SKETCH, ("a cat", None), ("a sketch of a cat, rough", "photo")),
        (SKETCH, ("", ""), ("a sketch of , rough", "photo")),
        (Style(name="x", prompt="oil painting"), ("a cat", None), ("a cat, oil painting", None)),
        (Style(name="x", prompt="oil painting"), ("a cat", ""), ("a cat, oil painting", "")),
        (Style(name="x", prompt="oil"), ("  ", None), ("oil", None)),
        (Style(name="x", negative_prompt="no {prompt}!"), ("a cat", "dog"), ("a cat", "no dog!")),
        (Style(name="x", prompt="{prompt} and {prompt}"), ("{prompt}", None), ("{prompt} and {prompt}", None)),
        (Style(name="nothing"), ("a cat", None), ("a cat", None)),
    ],
)
def test_a_style_goes_around_a_prompt_as_in_a1111(
    style: Style, given_: tuple[str, str | None], expected: tuple[str, str | None]
) -> None:
    assert style.apply(*given_) == expected


@pytest.mark.parametrize(
    "text",
    [
        "name,prompt,negative_prompt\nsketch,\"a sketch of {prompt}, rough\",photo\n",
        "\ufeffname,prompt,negative_prompt\r\nsketch,\"a sketch of {prompt}, rough\",photo\r\n",
        "prompt,name,other,negative_prompt\n\"a sketch of {prompt}, rough\",sketch,,photo",
        "name,text,negative_prompt\nsketch, \"a sketch of {prompt}, rough\", photo\n",
        "Name,Prompt,Negative_Prompt\n,,\n\nsketch,old,\nsketch,\"a sketch of {prompt}, rough\",photo\n",
    ],
)  # fmt: skip
def test_spellings_of_a_file(tmp_path: Path, text: str) -> None:
    assert read_styles(written(tmp_path, text)) == {"sketch": SKETCH}


def test_cells_that_lack_are_empty(tmp_path: Path) -> None:
    assert read_styles(written(tmp_path, "name,prompt,negative_prompt\na\nb,x\n")) == {
        "a": Style(name="a"), "b": Style(name="b", prompt="x"),
    }  # fmt: skip
    assert read_styles(written(tmp_path, 'name,prompt\n"two\nlines","x\ny"\n'))["two\nlines"].prompt == "x\ny"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no columns name, prompt"),
        ("name,words\na,b\n", "no columns name, prompt"),
        ("prompt,negative_prompt\na,b\n", "no columns name, prompt"),
        ("name,prompt\na,one, two\n", "line 2.*quotes"),
        ('name,prompt\na,"one\n', "cannot be read as a styles file"),
        ("name,prompt\na," + "x" * 200_000, "cannot be read as a styles file"),
        (b"name,prompt\na,\xff\xfe\n", "not UTF-8"),
        ("name,prompt\na,b\n".encode("utf-16"), "not UTF-8"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "not UTF-8"),
        ("name,prompt\n" + "".join(f"s{i},x\n" for i in range(MOST_STYLES + 1)), "more than 10000 styles"),
        ("name,prompt\n" + "a" * MOST_BYTES, "more than 4 MiB"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_what_is_no_styles_file_is_said(tmp_path: Path, text: str | bytes, said: str) -> None:
    with pytest.raises(IntegrityError, match=said) as caught:
        read_styles(written(tmp_path, text))
    assert len(str(caught.value)) < 400


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", tmp_path, Path("/dev/zero")):
        with pytest.raises(StorageError, match="styles file"):
            read_styles(path)


@given(st.binary(max_size=300))
def test_any_bytes_are_styles_or_one_clear_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(b"name,prompt\n" + data)
    try:
        found = read_styles(path)
    except PocketXLError:
        return
    assert all(name == style.name and style.apply("x")[0] for name, style in found.items())


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).map(str.strip).filter(bool),
                       st.text(st.characters(exclude_categories=["Cs", "Cc"])), max_size=5))  # fmt: skip
def test_what_csv_writes_is_read(tmp_path_factory: pytest.TempPathFactory, styles: dict[str, str]) -> None:
    out = io.StringIO()
    rows = csv.writer(out, quoting=csv.QUOTE_ALL)
    rows.writerow(["name", "prompt", "negative_prompt"])
    rows.writerows([name, prompt, ""] for name, prompt in styles.items())
    path = tmp_path_factory.getbasetemp() / "good.csv"
    path.write_text(out.getvalue(), encoding="utf-8", newline="")
    assert {name: style.prompt for name, style in read_styles(path).items()} == styles


def test_names_in_any_case_and_in_order() -> None:
    styles = {"Sketch": SKETCH, "Oil": Style(name="Oil")}
    assert find_styles(styles, ["oil", "Sketch"]) == [styles["Oil"], SKETCH]
    with pytest.raises(RequestError, match=r"'Sketsh'.*did you mean 'Sketch'"):
        find_styles(styles, ["Sketsh"])
    with pytest.raises(RequestError, match="there are Sketch, Oil"):
        find_styles(styles, ["zzzzzz"])
    with pytest.raises(RequestError, match="there are none"):
        find_styles({}, ["a"])
