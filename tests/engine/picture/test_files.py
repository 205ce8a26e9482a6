"""Every format of the table: settings survive, other programs read them, hostile files are refused in words."""

import contextlib
import errno
import io
import os
import struct
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.ExifTags import IFD, Base

from pocketxl.engine.errors import IntegrityError, RequestError, StorageError
from pocketxl.engine.picture import exif
from pocketxl.engine.picture.files import FORMATS, SUFFIXES, format_of, read_picture, read_settings, write_picture
from pocketxl.engine.picture.header import PictureHeader

RAMP = np.linspace(0, 255, 96 * 64 * 3).reshape(96, 64, 3).astype(np.uint8)
NOISE = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)
SETTINGS = {"Prompt": "図 一一一 🎉\na, b: c", "Negative prompt": "", "Steps": "3", "Seed": "5", "Size": "64x96"}
TEXTS = [None, "", "a cat\nSteps: 20, x: y", "naïve café", "図 🎉 \u2028", "nul \x00 inside", "一" * 10_000]
LOSSY = [suffix for row in FORMATS for suffix in row.suffixes if not row.lossless]


def header(data: bytes) -> PictureHeader:
    for row in FORMATS:
        if row.begins(data[:16]):
            return row.read(io.BytesIO(data), "a file")
    raise IntegrityError("no format")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_settings_come_back(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix.upper()}"
    write_picture(path, NOISE, SETTINGS)
    assert read_settings(path) == SETTINGS
    assert (read_picture(path).width, read_picture(path).height) == (14, 9)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    with Image.open(path) as image:
        assert image.format == format_of(path).name.upper()
        assert image.size == (14, 9)
        if format_of(path).lossless:
            np.testing.assert_array_equal(np.asarray(image), NOISE)
    before = path.read_bytes()
    write_picture(path, Image.fromarray(NOISE), SETTINGS)
    assert path.read_bytes() == before
    write_picture(path, NOISE, None)
    assert read_settings(path) == {}


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
@pytest.mark.parametrize("row", FORMATS, ids=lambda row: row.name)
def test_any_text_comes_back(row: object, text: str | None) -> None:
    data = next(r for r in FORMATS if r is row).encode(NOISE, text, 90)
    assert header(data) == PictureHeader(width=14, height=9, parameters=text)


@given(st.text())
def test_any_text_comes_back_from_exif(text: str) -> None:
    assert exif.unwrap(exif.wrap(text), "x") == text


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_other_programs_read_the_settings(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    write_picture(path, NOISE, SETTINGS)
    with Image.open(path) as image:
        if suffix == ".png":
            text = image.info["parameters"]
        else:  # as AUTOMATIC1111 does, by way of piexif: eight bytes of code, then UTF-16 from the high byte on
            comment = image.getexif().get_ifd(IFD.Exif)[Base.UserComment]
            assert comment[:8] == b"UNICODE\0"
            text = comment[8:].decode("utf-16-be")
    assert text == read_picture(path).parameters


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("place", ["inner", "outer"])
@pytest.mark.parametrize(
    "comment",
    [
        b"UNICODE\0" + "a 図 cat".encode("utf-16-be"),
        b"UNICODE\0" + "a 図 cat".encode("utf-16"),
        b"UNICODE\0\xfe\xff" + "a 図 cat".encode("utf-16-be"),
        bytes(8) + "a 図 cat".encode(),
    ],
    ids=["big", "marked", "marked big", "untold"],
)
@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_exif_of_other_programs(kind: str, comment: bytes, place: str, order: str) -> None:
    block = Image.Exif()
    block.endian = order
    block[Base.Make] = "a camera"
    target = block.get_ifd(IFD.Exif) if place == "inner" else block
    target[Base.UserComment] = comment
    buffer = io.BytesIO()
    Image.fromarray(NOISE).save(buffer, kind, exif=block)
    assert header(buffer.getvalue()).parameters == "a 図 cat"


def test_little_endian_text_in_a_little_endian_block() -> None:
    block = Image.Exif()
    block.endian = "<"
    block.get_ifd(IFD.Exif)[Base.UserComment] = b"UNICODE\0" + "a 図 cat".encode("utf-16-le")
    assert exif.unwrap(block.tobytes()[6:], "x") == "a 図 cat"


@pytest.mark.parametrize(
    "form", [{"lossless": True}, {"quality": 50}, {"quality": 50, "exif": b"II*\0\x08" + bytes(9)}]
)
def test_sizes_of_every_form_of_webp(form: dict[str, object]) -> None:
    for width, height in [(1, 1), (300, 7), (13, 511)]:
        buffer = io.BytesIO()
        Image.new("RGB", (width, height)).save(buffer, "WEBP", **form)
        assert (header(buffer.getvalue()).width, header(buffer.getvalue()).height) == (width, height)


def test_sizes_of_a_progressive_jpeg() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (300, 7)).save(buffer, "JPEG", progressive=True)
    assert header(buffer.getvalue()) == PictureHeader(width=300, height=7, parameters=None)


@pytest.mark.parametrize("suffix", LOSSY)
def test_quality_trades_size_for_likeness(suffix: str, tmp_path: Path) -> None:
    sizes, errors = [], []
    for quality in (10, 50, 100):
        path = tmp_path / f"{quality}{suffix}"
        write_picture(path, NOISE.repeat(8, 0).repeat(8, 1), SETTINGS, quality=quality)
        with Image.open(path) as image:
            shown = np.asarray(image, np.float32)
        errors.append(float(np.abs(shown - NOISE.repeat(8, 0).repeat(8, 1)).mean()))
        sizes.append(path.stat().st_size)
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("row", FORMATS, ids=lambda row: row.name)
def test_every_cut_of_the_head_is_found(row: object) -> None:
    data = next(r for r in FORMATS if r is row).encode(RAMP, "a cat", 90)
    pixels = data.rindex(b"\xff\xda") if data.startswith(b"\xff\xd8") else len(data) - 1
    for length in [*range(0, min(pixels, 1024)), pixels]:
        with pytest.raises(IntegrityError):
            header(data[:length])


BLOCKS = {row.name: row.encode(NOISE, "a cat", 90) for row in FORMATS}


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(sorted(BLOCKS)), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6))
def test_damaged_files_are_read_or_refused(name: str, changes: list[tuple[int, int]]) -> None:
    data = bytearray(BLOCKS[name])
    for at, value in changes:
        data[at % len(data)] = value
    with contextlib.suppress(IntegrityError):
        header(bytes(data))


@given(st.binary(max_size=200), st.sampled_from([b"", b"II*\0", b"MM\0*", exif.wrap("x")[:26]]))
def test_any_exif_is_read_or_refused(data: bytes, head: bytes) -> None:
    with contextlib.suppress(IntegrityError):
        exif.unwrap(head + data, "x")


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8\xff\xd9",
        b"\xff\xd8\xff\xe1\0\0",
        b"\xff\xd8\xff\xe1\0\x01",
        b"\xff\xd8\xff\xc0\0\x04aa\xff\xda",
        b"\xff\xd8\xff" + b"\xff" * 100_000,
        b"RIFF\xff\xff\xff\xffWEBPVP8X\x0a\0\0\0" + bytes(10),
        b"RIFF" + struct.pack("<I", 22) + b"WEBPEXIF\xff\xff\xff\x7f" + bytes(10),
        b"RIFF" + struct.pack("<I", 16) + b"WEBPVP8 " + struct.pack("<I", 4) + bytes(4),
        b"RIFF" + struct.pack("<I", 4) + b"WEBP",
    ],
)
def test_hostile_files(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(IntegrityError, match=r"a\.jpg"):
        read_picture(tmp_path / "a.jpg")


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"<svg/>", b"PK\x03\x04", b"RIFF....WAVE"])
def test_a_file_that_is_no_picture(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(IntegrityError, match=r"no picture in PNG, JPEG, WebP"):
        read_picture(tmp_path / "a.png")


def test_unreadable_and_missing(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.png", tmp_path):
        with pytest.raises(StorageError, match="cannot be read"):
            read_picture(path)


@pytest.mark.parametrize("name", ["a", "a.gif", ".png", "a.png.txt"])
def test_another_suffix_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"\.png, \.jpg, \.jpeg or \.webp"):
        write_picture(tmp_path / name, NOISE, SETTINGS)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_text_that_cannot_be_written(suffix: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="surrogate"):
        write_picture(tmp_path / f"a{suffix}", NOISE, {**SETTINGS, "Prompt": "\ud800"})
    assert not list(tmp_path.iterdir())


def test_more_text_than_jpeg_holds(tmp_path: Path) -> None:
    long = {**SETTINGS, "Prompt": "x" * 32_700}
    with pytest.raises(RequestError, match=r"choose \.png or \.webp"):
        write_picture(tmp_path / "a.jpg", NOISE, long)
    write_picture(tmp_path / "a.webp", NOISE, long)
    assert read_settings(tmp_path / "a.webp") == long


@pytest.mark.parametrize("picture", [NOISE[..., 0], NOISE.astype(np.float32), NOISE[..., :2]])
def test_pictures_of_another_form(tmp_path: Path, picture: np.ndarray) -> None:
    with pytest.raises(RequestError, match="uint8"):
        write_picture(tmp_path / "a.png", picture, SETTINGS)


@pytest.mark.parametrize("where", ["missing/a.png", "file/a.png", "folder.png", "x" * 300 + ".png"])
@pytest.mark.parametrize("replace", [True, False])
def test_places_that_cannot_be_written(tmp_path: Path, where: str, replace: bool) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_text("")
    expected: tuple[type[Exception], ...] = (StorageError, *([] if replace else [FileExistsError]))
    with pytest.raises(expected):
        write_picture(tmp_path / where, NOISE, SETTINGS, replace=replace)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.png"]
    assert not list((tmp_path / "folder.png").iterdir())


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, call: str) -> None:
    def fail(*_: object) -> NoReturn:
        raise error

    (tmp_path / "a.png").write_bytes(b"the older picture")
    where: object = os if call == "fsync" else Path
    monkeypatch.setattr(where, call, fail)
    expected = StorageError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected, match="No space left" if expected is StorageError else None):
        write_picture(tmp_path / "a.png", NOISE, SETTINGS)
    assert (tmp_path / "a.png").read_bytes() == b"the older picture"
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_a_write_that_stops_half_way(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))  # as a full disk: the first bytes fit, the next do not
    try:
        with pytest.raises(StorageError, match=r"a\.png cannot be written: File too large"):
            write_picture(tmp_path / "a.png", NOISE, SETTINGS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("links", [True, False])
def test_a_new_file_replaces_none(links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not links:

        def fail(*_: object) -> NoReturn:
            raise PermissionError(errno.EPERM, "Operation not permitted")  # FAT

        monkeypatch.setattr(os, "link", fail)
    path = tmp_path / "a.png"
    write_picture(path, NOISE, SETTINGS, replace=False)
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        write_picture(path, RAMP, SETTINGS, replace=False)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
