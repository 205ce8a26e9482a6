"""Which pictures belong, and what they are called."""

from pathlib import Path

import pytest
from PIL import Image

from pocketxl.export.miniature.vocabulary import code_points, core_names, is_wanted, name_of, read_vocabulary

pytest.importorskip("emoji")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("red apple", True),
        ("flag in hole", False),
        ("chequered flag", False),
        ("keycap: 3", False),
        ("radio button", False),
        ("waving hand: light skin tone", False),
    ],
)
def test_flags_keycaps_buttons_and_skin_tones_are_left_out(name: str, wanted: bool) -> None:
    assert is_wanted(name, (0x1F34E,)) is wanted


def test_regional_indicators_are_flags_whatever_their_name() -> None:
    assert not is_wanted("japan", (0x1F1EF, 0x1F1F5))


def test_file_names_are_code_points() -> None:
    assert code_points("1f469-200d-1f33e") == (0x1F469, 0x200D, 0x1F33E)
    assert code_points("readme") is None
    assert code_points("ffffffff") is None


def test_names_are_found_with_and_without_the_variation_selector() -> None:
    assert name_of((0x1F34E,)) == "red apple"
    assert name_of((0x2764,)) == name_of((0x2764, 0xFE0F)) == "red heart"
    assert name_of((0x1F483,)) == "woman dancing"
    assert name_of((0x41,)) is None


def test_one_picture_for_each_name(tmp_path: Path) -> None:
    for stem in ("2764", "2764-fe0f", "1f34e", "0023-fe0f-20e3", "1f1ef-1f1f5", "notes"):
        Image.new("RGBA", (4, 4)).save(tmp_path / f"{stem}.webp")
    assert sorted(emoji.name for emoji in read_vocabulary(tmp_path)) == ["red apple", "red heart"]


def test_core_names_are_different_and_known() -> None:
    emoji = pytest.importorskip("emoji")
    names = core_names()
    assert len(set(names)) == len(names)
    assert 200 <= len(names) <= 250
    known = {entry["en"].strip(":").replace("_", " ").replace("’", "'").lower() for entry in emoji.EMOJI_DATA.values()}
    assert set(names) <= known


def test_a_folder_without_pictures_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no named picture"):
        read_vocabulary(tmp_path)


def test_a_missing_core_name_is_named(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4)).save(tmp_path / "1f34e.webp")
    with pytest.raises(ValueError, match="octopus"):
        read_vocabulary(tmp_path, "core")
