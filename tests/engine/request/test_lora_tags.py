"""`<lora:name:0.8>` in prompts: AUTOMATIC1111's reading, and names that never become paths."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketxl.engine.errors import RequestError
from pocketxl.engine.request.lora_tags import Tag, lora_files, loras_of, take_tags


@pytest.mark.parametrize(
    ("written", "text", "unet"),
    [
        ("<lora:style>", 1, 1),
        ("<lora:style:0.8>", 0.8, 0.8),
        ("<lora:style:0.8:0.5>", 0.8, 0.5),
        ("<lora:style:-1.5>", -1.5, -1.5),
        ("<lora:style:.5>", 0.5, 0.5),
        ("<lora:style:te=0.2:unet=0.4>", 0.2, 0.4),
        ("<lora:style:unet=0.4>", 1, 0.4),
        ("<lora:style:0.7:unet=0.4>", 0.7, 0.4),
        ("<lyco:style:0.8>", 0.8, 0.8),
        ("<lora: style : 0.8 >", 0.8, 0.8),
    ],
)
def test_tags_as_automatic1111_reads_them(written: str, text: float, unet: float) -> None:
    assert take_tags(f"a fox, {written} red") == ("a fox,  red", (Tag(name="style", text=text, unet=unet),))


def test_what_is_no_tag_stays() -> None:
    for prompt in ("a <b> c", "<hypernet:x:1>", "<lora:>", "<lora", "lora:x:1>", "a < b > c"):
        assert take_tags(prompt) == (prompt, ())


@pytest.mark.parametrize("written", ["<lora:a:b>", "<lora:a:nan>", "<lora:a:1e999>", "<lora:a:" + "9" * 50 + ">"])
def test_a_weight_that_is_no_number_is_an_error_that_shows_the_tag(written: str) -> None:
    with pytest.raises(RequestError, match="the weight in <lora:a:"):
        take_tags(written)


@pytest.mark.parametrize("written", ["<lora::1>", "<lora:a:1:2:3>", "<lora:a:dyn=4>", "<lora: :1>"])
def test_a_tag_that_cannot_be_read_is_an_error_that_says_how_to_write_it(written: str) -> None:
    with pytest.raises(RequestError, match=r"cannot be read; write <lora:name:0\.8>"):
        take_tags(written)


def test_too_many_tags() -> None:
    with pytest.raises(RequestError, match="more than 32"):
        take_tags("<lora:a>" * 33)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "loras"
    (root / "people").mkdir(parents=True)
    for name in ("style.safetensors", "v1.2 final.safetensors", "people/fox.safetensors", "notes.txt"):
        (root / name).touch()
    (tmp_path / "outside.safetensors").touch()
    return root


def test_names_are_looked_up_in_the_folder_and_below_and_weights_add_up(folder: Path) -> None:
    words, files = loras_of("a fox <lora:style:0.5> <lora:fox:0.8:0.2><lora:style:0.25>", folder)
    assert words == "a fox  "
    assert files == {str(folder / "style.safetensors"): 0.75, str(folder / "people/fox.safetensors"): (0.8, 0.2)}
    assert loras_of("<lora:v1.2 final:1>", folder)[1] == {str(folder / "v1.2 final.safetensors"): 1.0}


@pytest.mark.parametrize(
    "name",
    [
        "../outside",
        "people/fox",
        "people\\fox",
        "/etc/passwd",
        "..",
        "~",
        "style.safetensors",
        "STYLE",
        "a\0b",
        "x" * 4096,
    ],
)
def test_a_name_is_never_a_path(folder: Path, name: str) -> None:
    with pytest.raises(RequestError, match="is not in"):
        loras_of(f"<lora:{name}:1>", folder)


def test_a_near_name_is_offered(folder: Path) -> None:
    with pytest.raises(RequestError, match="did you mean style"):
        loras_of("<lora:stile:1>", folder)


def test_a_link_that_leads_out_of_the_folder_is_not_in_it(folder: Path) -> None:
    (folder / "link.safetensors").symlink_to(folder.parent / "outside.safetensors")
    (folder / "inner.safetensors").symlink_to(folder / "style.safetensors")
    assert set(lora_files(folder)) == {"style", "v1.2 final", "fox", "inner"}


def test_one_name_twice_is_an_error(folder: Path) -> None:
    (folder / "people/style.safetensors").touch()
    with pytest.raises(RequestError, match="2 times"):
        loras_of("<lora:style>", folder)


def test_names_are_the_same_in_both_forms_of_unicode(folder: Path) -> None:
    (folder / "cafe\u0301.safetensors").touch()
    assert len(loras_of("<lora:caf\u00e9>", folder)[1]) == 1


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    assert loras_of("no tags at all", tmp_path / "none") == ("no tags at all", {})
    with pytest.raises(RequestError, match="does not exist"):
        loras_of("<lora:a>", tmp_path / "none")


@given(st.text(alphabet="<>lorayc:0.8=te \n", max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        words, tags = take_tags(text)
    except RequestError:
        return
    assert (words == text) == (not tags)


def test_hostile_text_costs_linear_time() -> None:
    take_tags("<lora:" * 200_000)
    take_tags("<" * 1_000_000 + os.sep)
