"""A file that is to be a picture: one clear error for each way in which it is none."""

from pathlib import Path

import pytest
from PIL import Image

from pocketxl.engine.errors import IntegrityError, RequestError, StorageError
from pocketxl.engine.pictures_in import files
from pocketxl.engine.pictures_in.files import open_picture


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    Image.effect_noise((40, 24), 90).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_it_is_decoded_when_it_is_opened(whole: Path) -> None:
    picture = open_picture(whole)
    whole.unlink()
    assert picture.convert("RGB").size == (40, 24)


def test_one_of_too_many_pixels_is_the_caller_s_and_not_damaged(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_PIXELS", 100)
    with pytest.raises(RequestError, match=r"a.png is 40x24, at most 100 pixels are taken; make it smaller"):
        open_picture(whole)


def test_what_is_none(whole: Path, tmp_path: Path) -> None:
    whole.write_bytes(whole.read_bytes()[:200])
    with pytest.raises(IntegrityError, match="cannot be decoded"):
        open_picture(whole)
    whole.write_text("a text")
    with pytest.raises(IntegrityError, match="no picture that Pillow knows"):
        open_picture(whole)
    for path in (tmp_path, tmp_path / "none.png"):
        with pytest.raises(StorageError, match="cannot be read"):
            open_picture(path)
