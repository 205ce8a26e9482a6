"""Pictures as PNG files with their settings inside, written whole or not at all."""

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from ..errors import IntegrityError, RequestError, StorageError
from ..folder.durable import write_whole

SIGNATURE = b"\x89PNG\r\n\x1a\n"
KEYWORD = b"parameters"
MAX_TEXT_BYTES = 4 << 20
MAX_FILE_BYTES = 1 << 30
_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class PngHeader:
    """What `read_png` finds without decoding pixels. `parameters` is None where the file has no such text."""

    width: int
    height: int
    parameters: str | None


def write_png(path: Path, image: npt.NDArray[np.uint8], parameters: str | None = None) -> None:
    """Write a picture, (height, width, 3) of uint8, with `parameters` as its text chunk of that name.

    The file appears under its name when it is complete, and replaces an older one only then; on errors and on Ctrl-C
    nothing is left behind. Raises `StorageError` with path and reason, `RequestError` for text that is not Unicode.
    """
    data = encode_png(image, parameters)
    try:
        write_whole(path, data)
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written: {error.strerror or error}; choose another place or make room"
        ) from error


def encode_png(image: npt.NDArray[np.uint8], parameters: str | None = None) -> bytes:
    """The bytes of that file. Needs the package Pillow."""
    from PIL import Image, PngImagePlugin

    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise RequestError(f"a picture must be (height, width, 3) of uint8, this is {image.shape} of {image.dtype}")
    text = PngImagePlugin.PngInfo()
    if parameters is not None:
        try:
            encoded = parameters.encode("utf-8")
        except UnicodeEncodeError as error:
            raise RequestError("the picture's parameters hold a lone surrogate, which is not text") from error
        if len(encoded) > MAX_TEXT_BYTES:
            raise RequestError(f"the picture's parameters have {len(encoded)} bytes, at most {MAX_TEXT_BYTES} fit")
        text.add_text(KEYWORD.decode(), parameters)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "PNG", pnginfo=text)
    return buffer.getvalue()


def read_png(path: Path) -> PngHeader:
    """Size and settings of a PNG file, ours or another program's. No pixel is decoded; every checksum is verified.

    Raises `IntegrityError` for a file that is no PNG, is damaged, cut short, or has a text over `MAX_TEXT_BYTES`, and
    `StorageError` for one that cannot be read.
    """
    try:
        with path.open("rb") as file:
            return _read(file, str(path))
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}") from error


def _read(file: BinaryIO, name: str) -> PngHeader:
    if file.read(len(SIGNATURE)) != SIGNATURE:
        raise IntegrityError(f"{name} is not a PNG file")
    size: tuple[int, int] | None = None
    parameters: str | None = None
    while True:
        head = file.read(8)
        if len(head) < 8:
            raise IntegrityError(f"{name} is cut short")
        (length, kind) = struct.unpack(">I4s", head)
        kept = kind in (b"IHDR", b"tEXt", b"zTXt", b"iTXt")
        if length > (MAX_TEXT_BYTES if kept else MAX_FILE_BYTES):
            raise IntegrityError(f"{name} has a chunk of {length} bytes, which is refused")
        data = _checked_chunk(file, kind, length, keep=kept, name=name)
        if size is None:
            if kind != b"IHDR" or len(data) != 13:
                raise IntegrityError(f"{name} is damaged: a PNG file begins with its size")
            size = struct.unpack(">II", data[:8])
        elif kept and parameters is None:
            parameters = _text(kind, data, name)
        elif kind == b"IEND":
            return PngHeader(width=size[0], height=size[1], parameters=parameters)


def _checked_chunk(file: BinaryIO, kind: bytes, length: int, *, keep: bool, name: str) -> bytes:
    checksum, data, left = zlib.crc32(kind), b"", length
    while left:
        block = file.read(min(left, _BLOCK))
        if not block:
            raise IntegrityError(f"{name} is cut short")
        checksum, left = zlib.crc32(block, checksum), left - len(block)
        data = data + block if keep else b""
    stored = file.read(4)
    if len(stored) < 4:
        raise IntegrityError(f"{name} is cut short")
    if int.from_bytes(stored, "big") != checksum:
        raise IntegrityError(f"{name} is damaged: a checksum does not match")
    return data


def _text(kind: bytes, data: bytes, name: str) -> str | None:
    """The text of a tEXt, zTXt or iTXt chunk with our keyword (PNG specification, section 11.3.3)."""
    keyword, _, rest = data.partition(b"\0")
    if keyword != KEYWORD or kind == b"IHDR":
        return None
    try:
        if kind == b"tEXt":
            return rest.decode("latin-1")
        if kind == b"zTXt":
            return _inflate(rest[1:]).decode("latin-1")
        _language, _translated, text = rest[2:].split(b"\0", 2)
        return (_inflate(text) if rest[0] else text).decode("utf-8")
    except (ValueError, zlib.error) as error:
        raise IntegrityError(f"{name}: its parameters are damaged ({error})") from error


def _inflate(data: bytes) -> bytes:
    inflate = zlib.decompressobj()
    text = inflate.decompress(data, MAX_TEXT_BYTES)
    if not inflate.eof:
        raise ValueError(f"more than {MAX_TEXT_BYTES} bytes, or cut short")
    return text
