"""Pictures as PNG files, their settings in a text chunk. Reference: PNG specification, third edition."""

import io
import struct
import zlib
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from ..errors import IntegrityError, RequestError
from .header import MAX_TEXT_BYTES, PictureHeader

SIGNATURE = b"\x89PNG\r\n\x1a\n"
KEYWORD = b"parameters"
COMFYUI_KEYWORD = b"prompt"
MAX_FILE_BYTES = 1 << 30
_BLOCK = 1 << 20


def encode_png(image: npt.NDArray[np.uint8], parameters: str | None = None) -> bytes:
    """The bytes of a file. Needs the package Pillow."""
    from PIL import Image, PngImagePlugin

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


def read_png(file: BinaryIO, name: str) -> PictureHeader:
    """Size and parameters, ours or another program's. No pixel is decoded; every checksum is verified.

    Raises `IntegrityError` for a file that is no PNG, is damaged, cut short, or has a text over `MAX_TEXT_BYTES`.
    """
    if file.read(len(SIGNATURE)) != SIGNATURE:
        raise IntegrityError(f"{name} is not a PNG file")
    size: tuple[int, int] | None = None
    parameters: str | None = None
    graph: str | None = None
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
        elif kept:
            parameters = _text(kind, data, name, KEYWORD) if parameters is None else parameters
            graph = _text(kind, data, name, COMFYUI_KEYWORD) if graph is None else graph
        elif kind == b"IEND":
            own = graph if parameters is None else None
            return PictureHeader(width=size[0], height=size[1], parameters=parameters, graph=own)


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


def _text(kind: bytes, data: bytes, name: str, wanted: bytes) -> str | None:
    """The text of a tEXt, zTXt or iTXt chunk with a keyword (PNG specification, section 11.3.3)."""
    keyword, _, rest = data.partition(b"\0")
    if keyword != wanted or kind == b"IHDR":
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
