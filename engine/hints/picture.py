"""A picture that steers, as a caller has it (a path, PIL's, an array) → numbers of the size that is wanted."""

import os
import reprlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import RequestError
from ..pictures_in.files import open_picture
from ..pictures_in.fit import fitted
from ..pictures_in.input import to_uint8
from ..pictures_in.values import picture_of


def read_picture(name: str, value: Any, height: int, width: int) -> npt.NDArray[np.uint8]:
    """`value` as `[height, width, 3]` of uint8; `name` is the argument's, for messages.

    What `pixels_of` takes. Another size is brought to the one wanted by Lanczos' filter, as diffusers does it, whatever
    the proportions. Raises as `pixels_of` does.
    """
    return np.array(fitted(pixels_of(name, value), height, width))


def pixels_of(name: str, value: Any) -> npt.NDArray[np.uint8]:
    """`value` as `[h, w, 3]` of uint8, in its own size: a path, or what `pictures_in.values.picture_of` takes.

    Transparency is dropped, as diffusers and transformers do it: a hint has no ground to lie on. Raises `RequestError`
    for anything else, `StorageError` and `IntegrityError` for a file that cannot be read.
    """
    given = open_picture(Path(value)) if isinstance(value, str | os.PathLike) else value
    if not isinstance(given, np.ndarray) and not hasattr(given, "convert"):
        raise RequestError(
            f"{name} is {reprlib.repr(value)}; give a path, a PIL picture or an array (height, width, 3)"
        )
    pixels = picture_of(name, given, ground=None)
    return pixels if pixels.dtype == np.uint8 else to_uint8(pixels)
