import errno
import io
import os
import struct
import zlib
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pocketxl.engine.errors import IntegrityError, RequestError, StorageError
from pocketxl.engine.picture import png
from pocketxl.engine.picture.png import PngHeader, encode_png, read_png, write_png

PICTURE = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)
TEXTS = [None, "", "a cat\nSteps: 20, x: y", "naïve café", "図 🎉 \u2028", "nul \x00 inside", "x" * 1_500_000]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_round_trip(tmp_path: Path, text: str | None) -> None:
    write_png(tmp_path / "a.png", PICTURE, text)
    assert read_png(tmp_path / "a.png") == PngHeader(width=14, height=9, parameters=text)
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(image), PICTURE)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("text", ["a cat", "図 🎉"])
def test_other_programs_read_the_text(tmp_path: Path, text: str) -> None:
    write_png(tmp_path / "a.png", PICTURE, text)
    with Image.open(tmp_path / "a.png") as image:
        assert image.info["parameters"] == text


def test_compressed_text_of_other_programs(tmp_path: Path) -> None:
    for add in ("add_text", "add_itxt"):
        info = PngInfo()
        info.add_text("Title", "something else")
        getattr(info, add)("parameters", "from elsewhere", zip=True)
        info.add_text("parameters", "a second one")
        Image.new("L", (3, 2)).save(tmp_path / "b.png", pnginfo=info)
        assert read_png(tmp_path / "b.png") == PngHeader(width=3, height=2, parameters="from elsewhere")


def test_every_flipped_byte_is_found(tmp_path: Path) -> None:
    data = encode_png(PICTURE[:2, :2], "a cat, 図")
    path = tmp_path / "a.png"
    for position in range(len(data)):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        with pytest.raises(IntegrityError, match=r"a\.png"):
            read_png(path)


def test_every_cut_is_found(tmp_path: Path) -> None:
    data = encode_png(PICTURE[:2, :2], "a cat")
    path = tmp_path / "a.png"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(IntegrityError):
            read_png(path)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


HEADER = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
END = chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "chunks",
    [
        END,
        chunk(b"IHDR", b"short") + END,
        HEADER + chunk(b"zTXt", b"parameters\0\0" + zlib.compress(bytes(100_000_000), 1)) + END,
        HEADER + chunk(b"iTXt", b"parameters\0\1\0\0\0" + zlib.compress(bytes(100_000_000), 1)) + END,
        HEADER + chunk(b"zTXt", b"parameters\0\0not zlib") + END,
        HEADER + chunk(b"iTXt", b"parameters\0") + END,
        HEADER + chunk(b"iTXt", b"parameters\0\0\0\0\0\xff\xfe") + END,
        HEADER + chunk(b"iTXt", b"parameters") + END,
        HEADER + struct.pack(">I", 0xFFFFFFFF) + b"IDAT",
        HEADER + struct.pack(">I", 0x7FFFFFF) + b"tEXt" + b"x" * 100,
    ],
)
def test_hostile_files(tmp_path: Path, chunks: bytes) -> None:
    (tmp_path / "a.png").write_bytes(png.SIGNATURE + chunks)
    with pytest.raises(IntegrityError):
        read_png(tmp_path / "a.png")


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\xff\xd8\xff", b"<svg/>", b"PK\x03\x04"])
def test_a_file_that_is_no_png(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(IntegrityError, match="is not a PNG file"):
        read_png(tmp_path / "a.png")


def test_a_huge_picture_is_not_decoded(tmp_path: Path) -> None:
    data = png.SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)) + END
    (tmp_path / "a.png").write_bytes(data)
    assert read_png(tmp_path / "a.png").width == 50_000


def test_unreadable_and_missing(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.png", tmp_path):
        with pytest.raises(StorageError, match="cannot be read"):
            read_png(path)


@pytest.mark.parametrize("where", ["missing/a.png", "file/a.png", "folder", "x" * 300])
def test_places_that_cannot_be_written(tmp_path: Path, where: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        write_png(tmp_path / where, PICTURE)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]
    assert not list((tmp_path / "folder").iterdir())


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, call: str) -> None:
    def fail(*_: object) -> NoReturn:
        raise error

    (tmp_path / "a.png").write_bytes(b"the older picture")
    if call == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr(Path, "replace", fail)
    expected = StorageError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected, match="No space left" if expected is StorageError else None):
        write_png(tmp_path / "a.png", PICTURE)
    assert (tmp_path / "a.png").read_bytes() == b"the older picture"
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_a_write_that_stops_half_way(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))  # as a full disk: the first bytes fit, the next do not
    try:
        with pytest.raises(StorageError, match=r"a\.png cannot be written: File too large"):
            write_png(tmp_path / "a.png", PICTURE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("picture", [PICTURE[..., 0], PICTURE.astype(np.float32), PICTURE[..., :2]])
def test_pictures_of_another_form(tmp_path: Path, picture: np.ndarray) -> None:
    with pytest.raises(RequestError, match="uint8"):
        write_png(tmp_path / "a.png", picture)


def test_text_that_is_not_unicode(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="surrogate"):
        write_png(tmp_path / "a.png", PICTURE, "\ud800")
    assert not list(tmp_path.iterdir())


def test_text_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="at most"):
        write_png(tmp_path / "a.png", PICTURE, "é" * (png.MAX_TEXT_BYTES // 2 + 1))


def test_bytes_are_those_of_the_picture() -> None:
    with Image.open(io.BytesIO(encode_png(PICTURE))) as image:
        assert image.mode == "RGB"
        assert image.size == (14, 9)
