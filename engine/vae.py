"""latents → pictures."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from .errors import NumericError, RequestError
from .install import needing
from .pictures_in.input import to_uint8 as to_uint8
from .runners.base import Runner, call


def decode(runner: Runner, latents: np.ndarray, scaling_factor: float) -> Iterator[np.ndarray]:
    """Decode latents (n, 4, h, w), unit variance, to n pictures (8h, 8w, 3) float32 in [0, 1], one after another.

    One picture a call, so that memory does not grow with the batch and a picture never depends on its neighbours.
    Raises `NumericError` for NaN or Inf: a black picture is never returned as if it were one.
    """
    for index, row in enumerate(latents):
        image = call(runner, {"latents": (row[None] / np.float32(scaling_factor)).astype(np.float32)})["image"][0]
        if not np.isfinite(image).all():
            raise NumericError(
                f"picture {index}: the VAE gave NaN or Inf, so there is no picture; rebuild the engine with the fp32 "
                "recipe, or check the checkpoint's VAE"
            )
        yield np.clip(image.transpose(1, 2, 0) / 2 + 0.5, 0, 1)


def check_latents(latents: object, channels: int, output_type: str) -> None:
    """Raise `RequestError` for what is no latents (n, channels, h, w), and for an output that is no picture."""
    if not isinstance(latents, np.ndarray) or latents.ndim != 4 or latents.shape[1] != channels:
        raise RequestError(f"latents must be an array (n, {channels}, height, width) of floats")
    if output_type not in ("pil", "np"):
        raise RequestError(f"output_type is {output_type!r}; choose pil or np")


def to_pil(picture: np.ndarray) -> Any:
    """A picture in [0, 1] → a PIL image. Needs the package pillow."""
    with needing("pillow", "a picture (other than output_type='np')"):
        from PIL import Image

    return Image.fromarray(to_uint8(picture))
