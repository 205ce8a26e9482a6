r"""Settings in EXIF, as AUTOMATIC1111 puts them into JPEG and WebP: the tag UserComment, `UNICODE\0` and UTF-16.

Reference: Exif 2.32, sections 4.5 and 4.6 (a TIFF structure: a header, and directories of entries of twelve bytes).
"""

import struct

from ..errors import IntegrityError, RequestError
from .header import MAX_TEXT_BYTES

MAX_BYTES = 2 * MAX_TEXT_BYTES + 1024
_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286
_LONG, _UNDEFINED = 4, 7
_UNICODE, _ASCII, _UNTOLD = b"UNICODE\0", b"ASCII\0\0\0", bytes(8)


def wrap(text: str) -> bytes:
    """The smallest EXIF block that holds `text`, big-endian. Raises `RequestError` for text that is not Unicode."""
    try:
        comment = _UNICODE + text.encode("utf-16-be")
    except UnicodeEncodeError as error:
        raise RequestError("the picture's parameters hold a lone surrogate, which is not text") from error
    if len(comment) > MAX_BYTES:
        raise RequestError(f"the picture's parameters have {len(comment)} bytes, at most {MAX_BYTES} fit")
    directory = struct.Struct(">HHHIII")  # one entry: tag, type, count, value or place; no directory after it
    inner = 8 + directory.size
    head = b"MM\0*" + struct.pack(">I", 8) + directory.pack(1, _EXIF_IFD, _LONG, 1, inner, 0)
    return head + directory.pack(1, _USER_COMMENT, _UNDEFINED, len(comment), inner + directory.size, 0) + comment


def unwrap(block: bytes, name: str) -> str | None:
    """The text of UserComment; None where there is none. Raises `IntegrityError` for a block that is damaged."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    try:
        if order is None:
            raise ValueError("no byte order")
        (first,) = struct.unpack_from(f"{order}I", block, 4)
        entries = _directory(block, first, order)
        inside = {} if _EXIF_IFD not in entries else _directory(block, entries[_EXIF_IFD][1], order)
        # Some programs put it beside the other tags.
        found = inside.get(_USER_COMMENT) or entries.get(_USER_COMMENT)
        if found is None:
            return None
        count, place = found
        if count < len(_UNICODE) or place + count > len(block):
            raise ValueError("a comment that is cut short")
        return _decode(block[place : place + len(_UNICODE)], block[place + len(_UNICODE) : place + count], order)
    except (struct.error, ValueError) as error:
        raise IntegrityError(f"{name}: its EXIF data are damaged ({error})") from error


def _directory(block: bytes, place: int, order: str) -> dict[int, tuple[int, int]]:
    """Tag → count and place of the value."""
    (count,) = struct.unpack_from(f"{order}H", block, place)
    entries = {}
    for index in range(count):
        tag, _kind, size, value = struct.unpack_from(f"{order}HHII", block, place + 2 + 12 * index)
        entries[tag] = (size, value)
    return entries


def _decode(code: bytes, text: bytes, order: str) -> str | None:
    if code in (_ASCII, _UNTOLD):
        return text.rstrip(b"\0 ").decode("utf-8")
    if code != _UNICODE:
        return None
    for mark, encoding in ((b"\xfe\xff", "utf-16-be"), (b"\xff\xfe", "utf-16-le")):
        if text.startswith(mark):
            return text[2:].decode(encoding)
    # AUTOMATIC1111 writes big-endian blocks and text. In little-endian blocks both orders are met: settings are mostly
    # ASCII, so the high bytes are the zeros.
    little = order == "<" and text[1::2].count(0) > text[0::2].count(0)
    return text.decode("utf-16-le" if little else "utf-16-be")
