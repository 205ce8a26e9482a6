"""What a checked call has of pictures: in the size that is made, with what is to become of them."""

from dataclasses import dataclass, replace
from typing import Self, TypeVar

import numpy as np
import numpy.typing as npt

from ..upscaler import Enlarger
from .crop import Crop

_T = TypeVar("_T")
Array = npt.NDArray[np.float32]
WHITE = 0.5
"""From which a mask counts as white, as in diffusers."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PictureInput:
    """What a picture begins from. There is one for all pictures that are made, one for each prompt, or one for each.

    Either `pictures` are given or `latents`.
    """

    pictures: tuple[np.ndarray, ...] = ()
    """(H, W, 3) each, uint8 or float32 in [0, 1], of the size that is made."""
    latents: Array | None = None
    """(n, C, h, w) of unit variance."""
    masks: tuple[Array, ...] = ()
    """(H, W) each, 1 where the picture is painted anew; with soft edges where they are blurred. Empty: everywhere."""
    strength: float
    """The share of the steps that is made."""
    first_step: int | None = None
    """Where to begin instead, counted from 0."""
    denoising_start: float | None = None
    """Where to begin instead, as a share of the trained timesteps; the input then has the noise that belongs there."""
    paste_back: bool = False
    """Whether what is black in the mask is taken from the input itself in the end."""
    digests: tuple[str, ...] = ()
    """sha256 in hex of the pictures as they were given, and `mask_digests` of the masks."""
    mask_digests: tuple[str, ...] = ()
    mask_blur: float = 0.0
    padding: int | None = None
    """Pixels around what is white in a mask, where that part alone is made; None: the whole is."""
    crops: tuple[Crop, ...] = ()
    """What the parts are of, one for each of `pictures`."""
    enlarged_by: Enlarger | None = None
    """The network that makes the pictures of a first pass larger; None: Pillow, or nothing does."""

    @property
    def count(self) -> int:
        """How many inputs there are."""
        return len(self.pictures) if self.latents is None else len(self.latents)

    def at(self, index: int, images: int) -> Self:
        """That of picture `index` of so many alone."""
        row = index * self.count // images
        return replace(
            self,
            pictures=_one(self.pictures, index, images),
            latents=None if self.latents is None else self.latents[row : row + 1],
            masks=_one(self.masks, index, images),
            digests=_one(self.digests, index, images),
            mask_digests=_one(self.mask_digests, index, images),
            crops=_one(self.crops, index, images),
        )

    def latent_masks(self, downscale: int) -> Array:
        """(n, 1, h, w), zeros and ones: of each latent the mask at its first pixel, as diffusers takes it."""
        whole = np.stack(self.masks)[:, None, ::downscale, ::downscale]
        return (whole >= WHITE).astype(np.float32)


def _one(items: tuple[_T, ...], index: int, images: int) -> tuple[_T, ...]:
    return (items[index * len(items) // images],) if items else ()


def floats(picture: np.ndarray) -> Array:
    """(H, W, 3) of uint8 or floats in [0, 1] → float32 in [0, 1]."""
    wide: Array = picture.astype(np.float32, copy=False)
    return wide / np.float32(255) if picture.dtype == np.uint8 else wide


def to_uint8(pictures: np.ndarray) -> np.ndarray:
    """Pictures in [0, 1] → uint8, rounded as diffusers does."""
    return np.asarray((pictures * 255).round().astype(np.uint8))


def spread(rows: np.ndarray, images: int) -> np.ndarray:
    """Rows for all pictures, for each prompt, or for each picture → a row for each picture."""
    return rows if len(rows) == images else rows[np.arange(images) * len(rows) // images]
