"""Anything that a caller may call a picture or a mask → one kind of array. Raises `RequestError` for the rest."""

from typing import Any

import numpy as np

from ..errors import RequestError

MOST_PIXELS = 1 << 27
"""Of a picture that is given; it is made smaller before anything else is done with it."""
_DEEP = 65535
"""White, of 16 bits."""


def picture_of(name: str, value: Any, *, ground: str | None = "white") -> np.ndarray:
    """A PIL picture, or an array (H, W), (H, W, 1) or (H, W, 3), of uint8, uint16 or floats in [0, 1] → (H, W, 3).

    The result is uint8, or float32 in [0, 1] for what had more depth. A PIL picture is turned as its EXIF data say;
    what is transparent lies on `ground`, or without one is as its colours say.
    """
    if not isinstance(value, np.ndarray):
        return _from_pil(name, value, ground)
    array = _checked(name, value, channels=(1, 3))
    return np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array


def mask_of(name: str, value: Any) -> np.ndarray:
    """The same for a mask: (H, W) float32, 0 where the picture stays and 1 where it is painted anew.

    Booleans are taken too; of colours their brightness counts, and what is transparent stays.
    """
    if not isinstance(value, np.ndarray):
        return _mask_from_pil(name, value)
    if value.dtype == np.bool_:
        value = value.astype(np.float32)
    array = _checked(name, value, channels=(1, 3))
    white = np.float32(255 if array.dtype == np.uint8 else 1)
    weights = np.array([0.299, 0.587, 0.114], np.float32) if array.shape[2] == 3 else np.ones(1, np.float32)
    return np.asarray((array.astype(np.float32) / white) @ weights, np.float32).clip(0, 1)


def _checked(name: str, array: np.ndarray, channels: tuple[int, ...]) -> np.ndarray:
    """(H, W, C) of uint8, or float32 in [0, 1]."""
    whole = array[:, :, None] if array.ndim == 2 else array
    if whole.ndim != 3 or whole.shape[2] not in channels or 0 in whole.shape:
        raise RequestError(f"{name} is an array of shape {array.shape}; give (height, width, 3) or (height, width)")
    _hold_size(name, whole.shape[1], whole.shape[0])
    if whole.dtype == np.uint8:
        return whole
    if whole.dtype == np.uint16:
        return whole.astype(np.float32) / _DEEP
    if whole.dtype.kind != "f":
        raise RequestError(f"{name} is an array of {array.dtype}; give uint8, or floats in [0, 1]")
    low, high = float(whole.min()), float(whole.max())
    if not 0 <= low <= high <= 1:  # false for NaN
        raise RequestError(f"{name} has numbers from {low:g} to {high:g}; floats must be in [0, 1]")
    return whole.astype(np.float32)


def _hold_size(name: str, width: int, height: int) -> None:
    if not 1 <= width * height <= MOST_PIXELS:
        raise RequestError(f"{name} is {width}x{height}, at most {MOST_PIXELS} pixels are taken; make it smaller first")


def _from_pil(name: str, value: Any, ground: str | None) -> np.ndarray:
    image = _upright(name, value)
    if (deep := _deep(image)) is not None:
        return np.repeat(deep[:, :, None], 3, axis=2)
    return np.asarray(_on(image, ground).convert("RGB"))


def _mask_from_pil(name: str, value: Any) -> np.ndarray:
    image = _upright(name, value)
    if (deep := _deep(image)) is not None:
        return deep
    return np.asarray(_on(image, "black").convert("L")).astype(np.float32) / 255


def _on(image: Any, ground: str | None) -> Any:
    """A PIL picture without what is transparent in it."""
    if ground is None or not _transparent(image):
        return image
    from PIL import Image

    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, ground), image)


def _upright(name: str, value: Any) -> Any:
    """A PIL picture as its camera held it."""
    if not (callable(getattr(value, "convert", None)) and hasattr(value, "mode")):
        what = f"the text {value[:64]!r}; open it with PIL.Image.open" if isinstance(value, str) else type(value)
        raise RequestError(f"{name} is {what}; give a PIL picture or an array (height, width, 3)")
    _hold_size(name, *value.size)
    from PIL import Image, ImageOps

    if value.mode not in (*Image.MODES, "I;16", "I;16B", "I;16L", "I;16N") or value.mode == "F":
        raise RequestError(f"{name} has Pillow's mode {value.mode}, which has no colours; convert it to RGB first")
    try:
        return ImageOps.exif_transpose(value)
    except (OSError, ValueError, SyntaxError) as error:
        raise RequestError(f"{name} cannot be decoded ({error}); give a whole picture") from error


def _deep(image: Any) -> np.ndarray | None:
    """(H, W) float32 in [0, 1] of a grey picture of 16 bits; None for others."""
    if not image.mode.startswith("I"):
        return None
    grey = np.asarray(image).astype(np.float32)
    # Mode I is of 32 bits, but what files bring in it has 16, or 8.
    white = _DEEP if image.mode != "I" or grey.max() > 255 else 255
    return np.asarray(np.clip(grey / np.float32(white), 0, 1))


def _transparent(image: Any) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
