"""What a call says of pictures as input, checked: `image`, `mask_image`, and what goes with them."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..architecture import Models
from ..errors import RequestError
from ..pictures_in.fit import blurred, fitted, hold_same_size, own_size
from ..pictures_in.input import WHITE, PictureInput
from ..pictures_in.values import mask_of, picture_of
from .cropping import crops_of, parts_of
from .limits import boolean, finite, number
from .request import GenerationRequest

STRENGTH = 0.3
"""Where a picture is given and no strength; diffusers' default, as the next."""
MASKED_STRENGTH = 0.9999
NO_ENCODER = (
    "this engine has no VAE encoder, which {what} needs; build it again with this release, from a checkpoint whose VAE "
    "has one{otherwise}"
)
_ALONE = ("strength", "denoising_start", "mask_image")


@dataclass(frozen=True, kw_only=True, eq=False)
class Given:
    """Pictures and masks as they were given, in one form and their own sizes."""

    pictures: tuple[np.ndarray, ...] = ()
    latents: np.ndarray | None = None
    masks: tuple[np.ndarray, ...] = ()

    def size(self, step: int, height: int | None, width: int | None) -> tuple[int, int]:
        """(height, width) that is made where not both are asked for."""
        if self.latents is not None:
            return self.latents.shape[2] * step, self.latents.shape[3] * step
        shapes = {picture.shape[:2] for picture in self.pictures}
        if len(shapes) > 1 and (height is None or width is None):
            raise RequestError("image is a list of pictures of several sizes; give width and height")
        return own_size(self.pictures[0].shape, step, height, width)


def read_pictures(request: GenerationRequest, models: Models, prompts: int) -> Given | None:
    """The pictures of a call for so many prompts; None where it has none. Raises `RequestError`."""
    if request.image is None:
        lone = next((name for name in _ALONE if getattr(request, name) is not None), None)
        if lone is not None:
            raise RequestError(f"{lone} was given without a picture; give image too, or leave it out")
        if beside := _beside_a_mask(request):
            raise RequestError(f"{beside} counts with mask_image alone; give it and image, or leave {beside} out")
        return None
    if request.mask_image is None and (beside := _beside_a_mask(request)):
        raise RequestError(f"{beside} counts with mask_image alone; give it, or leave {beside} out")
    latents = _latents(request.image, models, prompts)
    if latents is None and not models.encodes:
        raise RequestError(NO_ENCODER.format(what="image", otherwise=""))
    pictures = () if latents is not None else _each("image", request.image, prompts, picture_of)
    masks = () if request.mask_image is None else _each("mask_image", request.mask_image, prompts, mask_of)
    if len(masks) > 1 and len(pictures) not in (0, 1, len(masks)):
        raise RequestError(f"mask_image is a list of {len(masks)} for {len(pictures)} pictures; give one for each")
    for index, mask in enumerate(masks):
        if pictures:
            which = pictures[min(index, len(pictures) - 1)]
            hold_same_size("mask_image", mask.shape, "image", which.shape)
        if mask.max() < WHITE:
            raise RequestError("mask_image has no white, so nothing would be painted; white marks what is made anew")
    if masks and len(masks) == 1 and len(pictures) > 1:
        for picture in pictures:
            hold_same_size("mask_image", masks[0].shape, "image", picture.shape)
    return Given(pictures=pictures, latents=latents, masks=masks)


def picture_input(request: GenerationRequest, given: Given, height: int, width: int) -> PictureInput:
    """What the pictures come to for a call of that size. Raises `RequestError`."""
    start = _share("denoising_start", request.denoising_start)
    if start is not None and request.strength is not None:
        raise RequestError("strength and denoising_start both say where to begin; give one of them")
    blur = number("mask_blur", request.mask_blur)
    soft = tuple(blurred(mask, blur) for mask in given.masks)
    crops = crops_of(request, given, soft, height, width)
    masks, pictures = (
        parts_of(crops, height, width)
        if crops
        else (
            tuple(fitted(mask, height, width) for mask in soft),
            tuple(fitted(picture, height, width) for picture in given.pictures),
        )
    )
    paste_back = boolean("paste_back", request.paste_back)
    if given.latents is not None and (given.latents.shape[2] * 8, given.latents.shape[3] * 8) != (height, width):
        raise RequestError(
            f"image is of latents for {given.latents.shape[3] * 8}x{given.latents.shape[2] * 8}, and {width}x{height} "
            "was asked for; leave width and height out"
        )
    if paste_back and given.latents is not None:
        raise RequestError("paste_back takes the rest from a picture, and image is of latents; give a picture")
    default = MASKED_STRENGTH if masks else STRENGTH
    return PictureInput(
        pictures=pictures,
        latents=given.latents,
        masks=masks,
        strength=default if request.strength is None else number("strength", request.strength),
        denoising_start=start,
        paste_back=paste_back,
        digests=tuple(_digest(item) for item in (given.pictures if given.latents is None else given.latents)),
        mask_digests=tuple(_digest(mask) for mask in given.masks),
        mask_blur=blur,
        padding=request.padding_mask_crop,
        crops=crops,
    )


def _beside_a_mask(request: GenerationRequest) -> str | None:
    """What was given that says nothing without one."""
    given = {"mask_blur": request.mask_blur, "paste_back": request.paste_back}
    named = next((name for name, value in given.items() if value), None)
    return "padding_mask_crop" if named is None and request.padding_mask_crop is not None else named


def _share(name: str, value: object) -> float | None:
    if value is None:
        return None
    share = finite(name, value)
    if not 0 < share < 1:
        raise RequestError(f"{name} is {share:g}; it must be above 0 and below 1, or None")
    return share


def _each(name: str, value: Any, prompts: int, read: Callable[[str, Any], np.ndarray]) -> tuple[np.ndarray, ...]:
    """One for all prompts, or one for each."""
    several: Sequence[Any] | None = value if isinstance(value, list | tuple) else None
    if several is None and isinstance(value, np.ndarray) and value.ndim == 4:
        several = list(value)
    if several is None:
        return (read(name, value),)
    if len(several) != prompts:
        raise RequestError(f"{name} is a list of {len(several)} for {prompts} prompts; give one for each, or one alone")
    return tuple(read(f"{name}[{index}]", item) for index, item in enumerate(several))


def _latents(image: Any, models: Models, prompts: int) -> np.ndarray | None:
    """`image` where it is of latents: an array (n, C, h, w) of floats; None for pictures."""
    channels = models.vae.latent_channels
    if not (isinstance(image, np.ndarray) and image.ndim == 4 and image.shape[1] == channels):
        return None
    if image.shape[3] in (1, 3):  # a list of pictures that are four pixels high
        return None
    if image.dtype.kind != "f" or not np.isfinite(image).all():
        raise RequestError("image is an array of latents, and these must be finite floats")
    if len(image) % prompts and len(image) != 1:
        raise RequestError(f"image has {len(image)} latents for {prompts} prompts; give one for each, or one alone")
    return image.astype(np.float32)


def _digest(item: np.ndarray) -> str:
    """sha256 in hex of width, height and numbers: 8-bit pixels where it has no more."""
    shown = "x".join(map(str, item.shape[:2][::-1]))
    return hashlib.sha256(shown.encode() + np.ascontiguousarray(item).tobytes()).hexdigest()
