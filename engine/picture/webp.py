"""Pictures as WebP files, their settings in EXIF. Reference: RFC 9649."""

import io
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from ..errors import IntegrityError
from . import exif
from .header import PictureHeader

_SIZES = (b"VP8X", b"VP8 ", b"VP8L")
"""Chunks that tell the size in their first ten bytes."""


def encode_webp(image: npt.NDArray[np.uint8], parameters: str | None, quality: int) -> bytes:
    """The bytes of a file."""
    from PIL import Image

    buffer = io.BytesIO()
    block = b"" if parameters is None else exif.wrap(parameters)
    Image.fromarray(image).save(buffer, "WEBP", quality=quality, method=4, exif=block)
    return buffer.getvalue()


def begins_webp(head: bytes) -> bool:
    """Whether a file begins as WebP does."""
    return head[:4] == b"RIFF" and head[8:12] == b"WEBP"


def read_webp(file: BinaryIO, name: str) -> PictureHeader:
    """Size and parameters; pixels are passed over. Raises `IntegrityError`."""
    head = file.read(12)
    if not begins_webp(head):
        raise IntegrityError(f"{name} is not a WebP file")
    present = file.seek(0, io.SEEK_END)
    end = 8 + int.from_bytes(head[4:8], "little")
    if end > present:
        raise IntegrityError(f"{name} is cut short")
    size: tuple[int, int] | None = None
    parameters: str | None = None
    at = 12
    while at + 8 <= end:
        file.seek(at)
        kind, length = file.read(4), int.from_bytes(file.read(4), "little")
        if at + 8 + length > end:
            raise IntegrityError(f"{name} is damaged: a chunk leads out of it")
        if kind in _SIZES and size is None:
            size = _size(kind, file.read(min(length, 10)), name)
        elif kind == b"EXIF" and parameters is None:
            if length > exif.MAX_BYTES:
                raise IntegrityError(f"{name} has a chunk of {length} bytes, which is refused")
            parameters = exif.unwrap(file.read(length).removeprefix(b"Exif\0\0"), name)
        at += 8 + length + length % 2
    if size is None:
        raise IntegrityError(f"{name} is damaged: its size is not told")
    return PictureHeader(width=size[0], height=size[1], parameters=parameters)


def _size(kind: bytes, data: bytes, name: str) -> tuple[int, int]:
    """Width and height from the beginning of a chunk (sections 2.5 and 2.7; RFC 6386, section 9.1)."""
    if len(data) < (5 if kind == b"VP8L" else 10):
        raise IntegrityError(f"{name} is damaged: its size is not told")
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[4:7], "little"), 1 + int.from_bytes(data[7:10], "little")
    if kind == b"VP8 ":
        return int.from_bytes(data[6:8], "little") & 0x3FFF, int.from_bytes(data[8:10], "little") & 0x3FFF
    bits = int.from_bytes(data[1:5], "little")
    return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
