"""Inpainting a part alone (`padding_mask_crop`): what is around the mask, made at full size, and put back.

The rules are those of diffusers' `VaeImageProcessor` (`get_crop_region`, `_resize_and_fill`, `apply_overlay`), which
are AUTOMATIC1111's of `Only masked`.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..install import needing

Array = npt.NDArray[np.float32]
PURPOSE = "padding_mask_crop"


@dataclass(frozen=True, kw_only=True)
class Region:
    """Pixels from `left` and `top` on, up to `right` and `bottom`."""

    left: int
    top: int
    right: int
    bottom: int

    def of(self, picture: np.ndarray) -> np.ndarray:
        """That part of a picture."""
        return picture[self.top : self.bottom, self.left : self.right]


@dataclass(frozen=True, kw_only=True, eq=False)
class Crop:
    """A picture of which a part is made anew."""

    picture: np.ndarray
    """(H, W, 3), uint8 or float32 in [0, 1], whole."""
    mask: Array
    """(H, W), as soft as it was made."""
    region: Region

    def pasted(self, made: npt.NDArray[np.uint8]) -> Array:
        """The whole picture in [0, 1] with what was made of its part, (h, w, 3), where the mask is white."""
        own = self.picture.astype(np.float32)
        own /= np.float32(255 if self.picture.dtype == np.uint8 else 1)
        mask, part = self.region.of(self.mask)[:, :, None], self.region.of(own)
        fitted = _cut(made, *part.shape[:2]).astype(np.float32) / np.float32(255)
        part[:] = np.where(mask == 0, part, np.where(mask == 1, fitted, part + (fitted - part) * mask))
        return own


def region_of(mask: Array, height: int, width: int, padding: int) -> Region:
    """What is white in a mask (H, W), with so much around it, in the shape of height × width as far as it can."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    tall, wide = mask.shape
    top, bottom = max(int(rows[0]) - padding, 0), min(int(rows[-1]) + 1 + padding, tall)
    left, right = max(int(columns[0]) - padding, 0), min(int(columns[-1]) + 1 + padding, wide)
    shape = width / height
    if (right - left) / (bottom - top) > shape:
        top, bottom = _widened(top, bottom, int((right - left) / shape - (bottom - top)), tall)
    else:
        left, right = _widened(left, right, int((bottom - top) * shape - (right - left)), wide)
    return Region(left=left, top=top, right=right, bottom=bottom)


def filled(picture: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    """(h, w, 3) or (h, w) → that height and width with its proportions kept; the rest is what its edges have."""
    with needing("pillow", PURPOSE):
        from PIL import Image
    image = Image.fromarray(np.ascontiguousarray(picture))
    shape, own = width / height, image.width / image.height
    wide = width if shape < own else image.width * height // image.height
    tall = height if shape >= own else image.height * width // image.width
    resized = image.resize((max(wide, 1), max(tall, 1)), Image.Resampling.LANCZOS)
    (wide, tall), whole = resized.size, Image.new(image.mode, (width, height))
    left, top = width // 2 - wide // 2, height // 2 - tall // 2
    whole.paste(resized, (left, top))
    # A box without width or height is the edge's pixels, a little sharper: what diffusers fills with.
    if top > 0:
        for edge, at in ((0, 0), (tall, top + tall)):
            whole.paste(resized.resize((width, top), box=(0, edge, width, edge)), (0, at))
    elif left > 0:
        for edge, at in ((0, 0), (wide, left + wide)):
            whole.paste(resized.resize((left, height), box=(edge, 0, edge, height)), (at, 0))
    return np.asarray(whole)


def _cut(picture: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    """(H, W, 3) → that height and width with its proportions kept, and what is too much cut off around."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(picture))
    shape, own = width / height, image.width / image.height
    wide = width if shape > own else image.width * height // image.height
    tall = height if shape <= own else image.height * width // image.width
    resized = np.asarray(image.resize((wide, tall), Image.Resampling.LANCZOS))
    top, left = tall // 2 - height // 2, wide // 2 - width // 2
    return resized[top : top + height, left : left + width]


def _widened(first: int, last: int, more: int, most: int) -> tuple[int, int]:
    """A range that grows by so many pixels to either side, within 0 to `most`."""
    first, last = first - more // 2, last + more - more // 2
    if last >= most:
        first, last = first - (last - most), most
    if first < 0:
        first, last = 0, last - first
    return first, min(last, most)
