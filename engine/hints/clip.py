"""A picture as CLIP's image encoder takes it."""

from typing import Any

import numpy as np
import numpy.typing as npt

from ..install import needing
from .picture import pixels_of

MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
DEVIATION = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
"""Of the pixels that CLIP was trained on: OpenAI's numbers, and those of every image encoder of IP-Adapters."""


def clip_pixels(name: str, value: Any, side: int) -> npt.NDArray[np.float32]:
    """`value` as `pixels_of` takes it → `[3, side, side]`, as transformers' `CLIPImageProcessor` makes it.

    The shorter side becomes `side` by bicubic interpolation, and the middle is cut out. Raises as `pixels_of` does.
    """
    with needing("pillow", name):
        from PIL import Image
    picture = Image.fromarray(pixels_of(name, value))
    width, height = picture.size
    short = min(width, height)
    size = (side, int(side * height / short)) if width <= height else (int(side * width / short), side)
    picture = picture.resize(size, Image.Resampling.BICUBIC)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    pixels = np.asarray(picture, np.float32)[top : top + side, left : left + side] / np.float32(255)
    return np.ascontiguousarray(((pixels - MEAN) / DEVIATION).transpose(2, 0, 1), dtype=np.float32)
