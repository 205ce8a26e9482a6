"""What a call says of inpainting a part alone, checked: which part of each picture, and that part at full size."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ..errors import RequestError
from ..pictures_in.crop import Crop, filled, region_of
from ..pictures_in.input import Array, to_uint8
from .limits import integer
from .request import GenerationRequest

NAME = "padding_mask_crop"


class Pictures(Protocol):
    """What was given."""

    @property
    def pictures(self) -> Sequence[np.ndarray]:
        """(H, W, 3) each; none where latents were given."""


def crops_of(
    request: GenerationRequest, given: Pictures, masks: Sequence[Array], height: int, width: int
) -> tuple[Crop, ...]:
    """The parts of the pictures, one for each of these or of the masks; none where the whole is made.

    `masks`: blurred, in the pictures' sizes. Raises `RequestError`.
    """
    if request.padding_mask_crop is None:
        return ()
    padding, pictures = integer(NAME, request.padding_mask_crop), given.pictures
    if not pictures:
        raise RequestError(f"{NAME} puts a part back into a picture, and image is of latents; give a picture")
    if request.output_type == "latent":
        raise RequestError(f"{NAME} puts a part back into a picture, which latents are not; leave output_type out")
    if request.control_image is not None:
        raise RequestError(
            f"{NAME} and control_image do not go together: a hint is for the whole picture; give the part of picture, "
            "mask and hint themselves, or leave one of the two out"
        )
    if len({picture.shape for picture in pictures}) > 1:
        raise RequestError(f"image is a list of pictures of several sizes, which {NAME} leaves; give one size")
    count = max(len(pictures), len(masks))
    pairs = [(pictures[i * len(pictures) // count], masks[i * len(masks) // count]) for i in range(count)]
    return tuple(Crop(picture=p, mask=m, region=region_of(m, height, width, padding)) for p, m in pairs)


def parts_of(crops: Sequence[Crop], height: int, width: int) -> tuple[tuple[Array, ...], tuple[np.ndarray, ...]]:
    """The parts of masks, and of pictures (uint8), in the size that is made."""
    masks, pictures = [], []
    for crop in crops:
        mask, picture = crop.region.of(crop.mask), crop.region.of(crop.picture)
        masks.append(filled(to_uint8(mask), height, width).astype(np.float32) / np.float32(255))
        pictures.append(filled(picture if picture.dtype == np.uint8 else to_uint8(picture), height, width))
    return tuple(masks), tuple(pictures)
