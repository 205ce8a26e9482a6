"""A picture as a caller has it (a path, PIL's, an array) → numbers of the size that is wanted."""

import os
import reprlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import IntegrityError, RequestError, StorageError
from ..install import needing

MOST_PIXELS = 1 << 26
"""Of a picture that is read: 8192 × 8192."""


def read_picture(name: str, value: Any, height: int, width: int) -> npt.NDArray[np.uint8]:
    """`value` as `[height, width, 3]` of uint8; `name` is the argument's, for messages.

    A path, a PIL picture, or an array `[h, w]`, `[h, w, 3]` of uint8, or of floats in [0, 1]. Another size is brought
    to the one wanted by Lanczos' filter, as diffusers does it, whatever the proportions. Raises `RequestError` for
    anything else, `StorageError` and `IntegrityError` for a file that cannot be read.
    """
    picture = opened(name, value)
    if picture.size != (width, height):
        from PIL import Image

        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    return np.array(picture.convert("RGB"), dtype=np.uint8)


def opened(name: str, value: Any) -> Any:
    """`value` as a PIL picture of any mode, turned as its EXIF data say; raises as `read_picture` does."""
    with needing("pillow", name):
        from PIL import Image, ImageOps
    if isinstance(value, str | os.PathLike):
        return ImageOps.exif_transpose(_file(name, Path(value)))
    if isinstance(value, Image.Image):
        return ImageOps.exif_transpose(value)
    if isinstance(value, np.ndarray):
        return Image.fromarray(_pixels(name, value))
    raise RequestError(f"{name} is {reprlib.repr(value)}; give a path, a PIL picture or an array")


def _file(name: str, path: Path) -> Any:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise RequestError(
                    f"{path} has {picture.width}x{picture.height} pixels; at most {MOST_PIXELS} are read"
                )
            picture.load()
            return picture.copy()
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise StorageError(f"{name}: {path} cannot be read: {error.strerror}; give a picture's path") from error
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise IntegrityError(f"{name}: {path} is no picture, or a damaged one; give a .png, .jpg or .webp") from error


def _pixels(name: str, array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    shaped = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    if shaped.ndim not in (2, 3) or (shaped.ndim == 3 and shaped.shape[2] != 3) or 0 in shaped.shape:
        raise RequestError(f"{name} has shape {array.shape}; give (height, width, 3) or (height, width)")
    if shaped.dtype == np.uint8:
        return np.ascontiguousarray(shaped)
    if shaped.dtype.kind != "f":
        raise RequestError(f"{name} is of type {array.dtype}; give uint8, or floats from 0 to 1")
    if not (np.isfinite(shaped).all() and shaped.min() >= 0 and shaped.max() <= 1):
        raise RequestError(f"{name} has floats outside 0 to 1; give floats from 0 to 1, or uint8")
    return (shaped.astype(np.float64) * 255).round().astype(np.uint8)
