"""What SDXL is told about sizes: of the picture that it should have been trained on, and of how that was cropped."""

from typing import NamedTuple

from ..errors import RequestError
from .limits import pair
from .request import GenerationRequest


class ToldSizes(NamedTuple):
    """(height, width) and (top, left) pairs; None: what the picture has."""

    original: tuple[int, int] | None
    target: tuple[int, int] | None
    crop: tuple[int, int]
    negative_original: tuple[int, int] | None
    negative_target: tuple[int, int] | None
    negative_crop: tuple[int, int]


def told_sizes(request: GenerationRequest) -> ToldSizes:
    """Those of a call, checked. Raises `RequestError`."""
    found = ToldSizes(
        original=pair("original_size", request.original_size),
        target=pair("target_size", request.target_size),
        crop=pair("crops_coords_top_left", request.crops_coords_top_left) or (0, 0),
        negative_original=pair("negative_original_size", request.negative_original_size),
        negative_target=pair("negative_target_size", request.negative_target_size),
        negative_crop=pair("negative_crops_coords_top_left", request.negative_crops_coords_top_left) or (0, 0),
    )
    # diffusers ignores these without a word where one is lacking.
    together = (found.negative_original is None) == (found.negative_target is None)
    if not together or (found.negative_original is None and found.negative_crop != (0, 0)):
        raise RequestError(
            "negative_original_size, negative_target_size and negative_crops_coords_top_left count only together; "
            "give both sizes, or none of the three"
        )
    return found
