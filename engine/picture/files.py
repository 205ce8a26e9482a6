"""Pictures with their settings inside, in the formats of this table; they are written whole or not at all."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ..errors import IntegrityError, RequestError, StorageError
from ..folder.durable import sync, write_new, write_whole
from . import comfyui, jpeg, png, webp
from .header import PictureHeader
from .infotext import parse, write

QUALITY = 90
"""Of the formats that lose something, 1 to 100."""


@dataclass(frozen=True, kw_only=True)
class PictureFormat:
    """One row."""

    name: str
    suffixes: tuple[str, ...]
    begins: Callable[[bytes], bool]
    """Whether a file with these first bytes is of this format."""
    encode: Callable[[npt.NDArray[np.uint8], str | None, int], bytes]
    """Picture (height, width, 3), parameters and quality → the file's bytes."""
    read: Callable[[BinaryIO, str], PictureHeader]
    lossless: bool


FORMATS = (
    PictureFormat(name="PNG", suffixes=(".png",), begins=lambda head: head.startswith(png.SIGNATURE), lossless=True,
                  encode=lambda image, text, _quality: png.encode_png(image, text), read=png.read_png),
    PictureFormat(name="JPEG", suffixes=(".jpg", ".jpeg"), begins=lambda head: head.startswith(jpeg.SIGNATURE),
                  encode=jpeg.encode_jpeg, read=jpeg.read_jpeg, lossless=False),
    PictureFormat(name="WebP", suffixes=(".webp",), begins=webp.begins_webp,
                  encode=webp.encode_webp, read=webp.read_webp, lossless=False),
)  # fmt: skip
SUFFIXES = tuple(suffix for row in FORMATS for suffix in row.suffixes)


def format_of(path: Path) -> PictureFormat:
    """The format that a path's suffix chooses. Raises `RequestError` for another suffix."""
    for row in FORMATS:
        if path.suffix.lower() in row.suffixes:
            return row
    raise RequestError(f"{path} must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")


def write_picture(
    path: Path, picture: Any, settings: Mapping[str, str] | None, *, quality: int | None = None, replace: bool = True
) -> None:
    """Write a picture, (height, width, 3) of uint8 or a PIL one, with `settings` (of `describe`, or none) inside.

    The suffix chooses the format; `quality` (None: 90) is for JPEG and WebP. The file appears under its name when it is
    complete, and replaces an older one only then; without `replace`, FileExistsError is raised if there is one by then.
    Raises `RequestError` and `StorageError`.
    """
    kind = format_of(path)
    image = np.ascontiguousarray(picture)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise RequestError(f"a picture must be (height, width, 3) of uint8, this is {image.shape} of {image.dtype}")
    text = None if settings is None else write(settings)
    data = kind.encode(image, text, QUALITY if quality is None else quality)
    try:
        (write_whole if replace else write_new)(path, data)
        sync(path.parent)
    except FileExistsError:
        raise
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> StorageError:
    """The error for a picture that cannot be written where it should."""
    return StorageError(f"{path} cannot be written: {error.strerror or error}; choose another place or make room")


def read_picture(path: Path) -> PictureHeader:
    """Size and parameters of a picture file, whatever its suffix, ours or another program's; no pixel is decoded.

    Raises `IntegrityError` for a file that is none of `FORMATS` or is damaged before its pixels (a PNG: anywhere), and
    `StorageError` for one that cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(16)
            file.seek(0)
            for row in FORMATS:
                if row.begins(head):
                    return row.read(file, str(path))
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}") from error
    raise IntegrityError(f"{path} is no picture in {', '.join(row.name for row in FORMATS)}")


def read_settings(path: Path) -> dict[str, str]:
    """The settings inside a picture, ours or another program's, empty where it has none.

    `parameters.keywords` makes a call of them.
    """
    header = read_picture(path)
    if header.parameters is not None:
        return parse(header.parameters)
    return {} if header.graph is None else comfyui.settings_of(header.graph)
