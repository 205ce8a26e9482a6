"""What a call asks of an IP-Adapter: by which pictures, and how much."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import RequestError
from ..hints.clip import clip_pixels
from .limits import number

IMAGE, SCALE = "ip_adapter_image", "ip_adapter_scale"
MOST = 16
"""Pictures of one prompt."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ImagePrompt:
    """The pictures that a call has beside its words."""

    pixels: npt.NDArray[np.float32]
    """`[pictures, 3, side, side]`, as CLIP takes them."""
    scale: float
    """What the picture's attention adds is multiplied by this."""
    model: str = ""
    """What its folder is called, and the beginning of its digest."""


def image_prompt(request: Any, side: int | None, model: str) -> ImagePrompt | None:
    """The image prompt of a call. `side`: pixels that the loaded IP-Adapter takes, None without one.

    Raises `RequestError`, and what `read_picture` raises.
    """
    given = request.ip_adapter_image
    if given is None:
        if request.ip_adapter_scale is not None:
            raise RequestError(f"{SCALE} was given without {IMAGE}; give the picture too")
        return None
    if side is None:
        raise RequestError(f"{IMAGE} was given, but no IP-Adapter is loaded; give ip_adapter=folder to Pipeline.load")
    pictures = list(given) if isinstance(given, list | tuple) else [given]
    if not 1 <= len(pictures) <= MOST:
        raise RequestError(f"{IMAGE} has {len(pictures)} pictures; give 1 to {MOST}")
    scale = 1.0 if request.ip_adapter_scale is None else number(SCALE, request.ip_adapter_scale)
    pixels = np.stack([clip_pixels(IMAGE, picture, side) for picture in pictures])
    return ImagePrompt(pixels=pixels, scale=scale, model=model)
