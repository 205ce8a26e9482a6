"""A picture as a caller has it, at the size that is wanted, as diffusers' processor brings it there."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pocketxl.engine.errors import IntegrityError, RequestError, StorageError
from pocketxl.engine.hints.picture import read_picture

PICTURE = np.random.default_rng(1).integers(256, size=(24, 40, 3)).astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), [(24, 40), (16, 48), (64, 64)])
def test_it_is_resized_as_diffusers_does_it(height: int, width: int) -> None:
    from diffusers.image_processor import VaeImageProcessor

    processor = VaeImageProcessor(do_convert_rgb=True, do_normalize=False)
    theirs = processor.preprocess(Image.fromarray(PICTURE), height=height, width=width)[0].permute(1, 2, 0).numpy()
    ours = read_picture("image", Image.fromarray(PICTURE), height, width)
    assert ours.dtype == np.uint8
    assert np.abs(ours / 255 - theirs).max() < 1e-6


def test_a_path_an_array_and_floats_are_the_same(tmp_path: Path) -> None:
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    for given in (tmp_path / "a.png", str(tmp_path / "a.png"), PICTURE, PICTURE / 255, (PICTURE / 255).astype("f")):
        assert (read_picture("image", given, 24, 40) == PICTURE).all()


def test_grey_and_transparent_pictures_become_three_colours() -> None:
    grey = PICTURE[..., 0]
    for given in (grey, grey[..., None], Image.fromarray(grey)):
        assert (read_picture("image", given, 24, 40) == grey[..., None]).all()
    clear = Image.fromarray(PICTURE).convert("RGBA")
    clear.putalpha(0)
    assert (read_picture("image", clear, 24, 40) == PICTURE).all(), "its colours count, as in diffusers"


def test_sixteen_bits_are_as_bright_as_eight(tmp_path: Path) -> None:
    deep = PICTURE[..., 0].astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "deep.png")
    for given in (tmp_path / "deep.png", Image.open(tmp_path / "deep.png"), deep):
        assert (read_picture("image", given, 24, 40) == PICTURE[..., :1]).all()


def test_what_a_caller_does_with_the_array_later_changes_nothing() -> None:
    given = PICTURE.copy()
    found = read_picture("image", given, 24, 40)
    given[:] = 0
    assert (found == PICTURE).all()


def test_a_photo_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    """As `image` is: the same photo as both must lie the same way."""
    photo = Image.fromarray(PICTURE)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    photo.save(tmp_path / "a.png", exif=exif)
    turned = np.rot90(PICTURE, -1)
    with Image.open(tmp_path / "a.png") as opened:
        for given in (tmp_path / "a.png", opened):
            assert (read_picture("control_image", given, 40, 24) == turned).all()


def test_a_picture_of_too_many_pixels_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    monkeypatch.setattr("pocketxl.engine.pictures_in.files.MOST_PIXELS", 100)
    with pytest.raises(RequestError, match="40x24, at most 100 pixels are taken"):
        read_picture("image", tmp_path / "a.png", 8, 8)


def test_a_cut_file_a_folder_and_nothing(tmp_path: Path) -> None:
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:200])
    with pytest.raises(IntegrityError, match="cannot be decoded"):
        read_picture("image", tmp_path / "b.png", 8, 8)
    for path in (tmp_path, tmp_path / "c.png"):
        with pytest.raises(StorageError, match="cannot be read"):
            read_picture("image", path, 8, 8)
