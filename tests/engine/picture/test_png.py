import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pocketxl.engine.errors import IntegrityError, RequestError
from pocketxl.engine.picture import png
from pocketxl.engine.picture.header import MAX_TEXT_BYTES, PictureHeader
from pocketxl.engine.picture.png import encode_png, read_png

PICTURE = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)


def read(path: Path) -> PictureHeader:
    with path.open("rb") as file:
        return read_png(file, str(path))


def test_compressed_text_of_other_programs(tmp_path: Path) -> None:
    for add in ("add_text", "add_itxt"):
        info = PngInfo()
        info.add_text("Title", "something else")
        getattr(info, add)("parameters", "from elsewhere", zip=True)
        info.add_text("parameters", "a second one")
        Image.new("L", (3, 2)).save(tmp_path / "b.png", pnginfo=info)
        assert read(tmp_path / "b.png") == PictureHeader(width=3, height=2, parameters="from elsewhere")


def test_every_flipped_byte_is_found(tmp_path: Path) -> None:
    data = encode_png(PICTURE[:2, :2], "a cat, 図")
    path = tmp_path / "a.png"
    for position in range(len(data)):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        with pytest.raises(IntegrityError, match=r"a\.png"):
            read(path)


def test_every_cut_is_found(tmp_path: Path) -> None:
    data = encode_png(PICTURE[:2, :2], "a cat")
    path = tmp_path / "a.png"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(IntegrityError):
            read(path)


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
        read(tmp_path / "a.png")


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\xff\xd8\xff", b"<svg/>", b"PK\x03\x04"])
def test_a_file_that_is_no_png(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(IntegrityError, match="is not a PNG file"):
        read(tmp_path / "a.png")


def test_a_huge_picture_is_not_decoded(tmp_path: Path) -> None:
    data = png.SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)) + END
    (tmp_path / "a.png").write_bytes(data)
    assert read(tmp_path / "a.png").width == 50_000


def test_text_that_is_too_long() -> None:
    with pytest.raises(RequestError, match="at most"):
        encode_png(PICTURE, "é" * (MAX_TEXT_BYTES // 2 + 1))


def test_bytes_are_those_of_the_picture() -> None:
    with Image.open(io.BytesIO(encode_png(PICTURE))) as image:
        assert image.mode == "RGB"
        assert image.size == (14, 9)
