"""Pictures as JPEG files, their settings in EXIF. Reference: ITU-T T.81, annex B."""

import io
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from ..errors import IntegrityError, RequestError
from . import exif
from .header import PictureHeader

SIGNATURE = b"\xff\xd8\xff"
_MARK = b"Exif\0\0"
_MOST_IN_SEGMENT = 65_533
_APP1, _SCAN, _END = 0xE1, 0xDA, 0xD9
_ALONE = {0x01, *range(0xD0, 0xD9)}
"""Markers without a length."""
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Those that tell the size."""


def encode_jpeg(image: npt.NDArray[np.uint8], parameters: str | None, quality: int) -> bytes:
    """The bytes of a file. Raises `RequestError` for parameters that one segment has no room for."""
    from PIL import Image

    block = b"" if parameters is None else _MARK + exif.wrap(parameters)
    if len(block) > _MOST_IN_SEGMENT:
        raise RequestError(
            f"the picture's parameters have {len(block)} bytes, and a JPEG file has room for {_MOST_IN_SEGMENT}; "
            "choose .png or .webp"
        )
    buffer = io.BytesIO()
    # Colours at full resolution: halved, as is usual, a red apple loses its edge.
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=0, exif=block)
    return buffer.getvalue()


def read_jpeg(file: BinaryIO, name: str) -> PictureHeader:
    """Size and parameters, from the segments before the pixels. Raises `IntegrityError`."""
    if file.read(2) != SIGNATURE[:2]:
        raise IntegrityError(f"{name} is not a JPEG file")
    size: tuple[int, int] | None = None
    parameters: str | None = None
    while (marker := _marker(file, name)) not in (_SCAN, _END):
        if marker in _ALONE:
            continue
        length = int.from_bytes(file.read(2), "big")
        data = file.read(max(length - 2, 0))
        if length < 2 or len(data) < length - 2:
            raise IntegrityError(f"{name} is cut short")
        if marker in _FRAMES and size is None:
            if len(data) < 5:
                raise IntegrityError(f"{name} is damaged: its size is not told")
            size = (int.from_bytes(data[3:5], "big"), int.from_bytes(data[1:3], "big"))
        elif marker == _APP1 and data.startswith(_MARK) and parameters is None:
            parameters = exif.unwrap(data[len(_MARK) :], name)
    if size is None:
        raise IntegrityError(f"{name} is damaged: its size is not told")
    return PictureHeader(width=size[0], height=size[1], parameters=parameters)


def _marker(file: BinaryIO, name: str) -> int:
    head = file.read(2)
    while head == b"\xff\xff":  # filling
        head = head[1:] + file.read(1)
    if len(head) < 2:
        raise IntegrityError(f"{name} is cut short")
    if head[0] != 0xFF or head[1] == 0:
        raise IntegrityError(f"{name} is damaged: a marker is missing")
    return head[1]
