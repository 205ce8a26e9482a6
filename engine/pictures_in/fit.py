"""Sizes of pictures that are given, and the pictures brought to the size that is made."""

import numpy as np

from ..errors import RequestError
from ..install import needing


def own_size(shape: tuple[int, ...], step: int, height: int | None, width: int | None) -> tuple[int, int]:
    """(height, width) to make for a picture of shape (H, W, …), each rounded down to a multiple of `step`.

    Where one side is asked for, the other follows from the picture's shape.
    """
    own_height, own_width = shape[:2]
    if height is None and width is not None:
        own_height = round(own_height * width / own_width)
    elif width is None and height is not None:
        own_width = round(own_width * height / own_height)
    return (
        max(own_height - own_height % step, step) if height is None else height,
        max(own_width - own_width % step, step) if width is None else width,
    )


def fitted(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W, 3) or (H, W) → that height and width, by Pillow's Lanczos filter; its own type."""
    if picture.shape[:2] == (height, width):
        return picture
    with needing("pillow", "a picture of another size than is made"):
        from PIL import Image
    size = (width, height)
    if picture.dtype == np.uint8:
        return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))
    planes = picture[:, :, None] if picture.ndim == 2 else picture
    found = [
        np.asarray(Image.fromarray(np.ascontiguousarray(planes[:, :, i])).resize(size, Image.Resampling.LANCZOS))
        for i in range(planes.shape[2])
    ]
    whole = np.clip(np.stack(found, axis=2), 0, 1)  # the filter goes beyond what it is given
    return whole[:, :, 0] if picture.ndim == 2 else whole


def blurred(mask: np.ndarray, radius: float) -> np.ndarray:
    """A mask (H, W) in [0, 1] with soft edges: Pillow's Gaussian blur, as diffusers' `mask_processor.blur` has it."""
    if not radius:
        return mask
    with needing("pillow", "mask_blur"):
        from PIL import Image, ImageFilter

    grey = Image.fromarray((mask * 255).round().astype(np.uint8))
    return np.asarray(grey.filter(ImageFilter.GaussianBlur(radius))).astype(np.float32) / 255


def hold_same_size(what: str, shape: tuple[int, ...], of: str, other: tuple[int, ...]) -> None:
    """Raise `RequestError` for a picture of another size than its fellow."""
    if shape[:2] != other[:2]:
        raise RequestError(f"{what} is {shape[1]}x{shape[0]} and {of} {other[1]}x{other[0]}; give them in one size")
