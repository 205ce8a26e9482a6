"""Compositions: a picture, its caption, and the size and crop ids that are true of it."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from . import captions
from .vocabulary import Emoji

Size = tuple[int, int]  # height, width, in pixels
Pixels = npt.NDArray[np.uint8]

# Shares of the training mixture. Most samples are single centred objects, so that names are learned first.
TWO_OBJECTS: Final = 0.27
PLAIN: Final = 0.12
SIZE_WORD: Final = 0.12
LOW_RESOLUTION: Final = 0.12
HIGH_RESOLUTION: Final = 0.10
CROPPED: Final = 0.08
SCALES: Final[dict[str, float]] = {"": 0.90, "small": 0.50, "large": 1.08}
TWO_SCALE: Final = 0.85
LOW_SCALES: Final = (0.1875, 0.25, 0.375, 0.5, 0.75)
HIGH_SCALES: Final = (1.25, 1.5, 2.0)


@dataclass(frozen=True, kw_only=True)
class Composition:
    """What is to be drawn, and what the models are told about it.

    `objects` are names from left to right. `original_size` is the size of the picture before it was scaled to the
    target: below the target the picture is blurred for real. `crop` is the top left corner, in pixels, of the window
    that was cut out of a larger canvas on which the object is centred in the first window.
    """

    caption: str
    objects: tuple[str, ...]
    colour: str
    scale: float
    original_size: Size
    crop: Size
    target_size: Size

    @property
    def time_ids(self) -> tuple[int, int, int, int, int, int]:
        """The six ids of SDXL base: original size, crop, target size, each height first."""
        return (*self.original_size, *self.crop, *self.target_size)

    @property
    def aesthetic_score(self) -> float:
        """What the refiner is told: 6 for a sharp original, falling towards 2 with the resolution that was lost."""
        sharpness = min(1.0, self.original_size[0] / self.target_size[0])
        return 2.0 + 4.0 * sharpness


def buckets(resolution: int) -> tuple[Size, Size, Size]:
    """Square, landscape and portrait sizes of about equal area, all divisible by 32 at 128 and at 256."""
    short, long = resolution * 3 // 4, resolution * 5 // 4
    return (resolution, resolution), (short, long), (long, short)


def draw_composition(names: Sequence[str], rng: random.Random, target: Size) -> Composition:
    """One composition of the training mixture for a bucket."""
    colour = rng.choice(list(captions.COLOURS))
    if rng.random() < TWO_OBJECTS:
        left, right = rng.sample(list(names), 2)
        caption = captions.two(left, right, colour, mirrored=rng.random() < 0.25)
        original, _ = _resolution(rng, target, may_crop=False)
        return Composition(
            caption=caption,
            objects=(left, right),
            colour=colour,
            scale=TWO_SCALE,
            original_size=original,
            crop=(0, 0),
            target_size=target,
        )
    name = rng.choice(names)
    word = ""
    kind = rng.random()
    if kind < PLAIN:
        colour = "white"  # a caption that names no background means a white one
        caption = name if rng.random() < 0.5 else captions.with_article(name)
    else:
        if kind < PLAIN + SIZE_WORD:
            word = rng.choice(("small", "large"))
        caption = captions.one(name, colour, word)
    original, crop = _resolution(rng, target, may_crop=True)
    return Composition(
        caption=caption,
        objects=(name,),
        colour=colour,
        scale=SCALES[word],
        original_size=original,
        crop=crop,
        target_size=target,
    )


def _resolution(rng: random.Random, target: Size, *, may_crop: bool) -> tuple[Size, Size]:
    """Original size and crop: mostly native, else blurred, larger, or a window of a larger canvas."""
    height, width = target
    kind = rng.random()
    if kind < LOW_RESOLUTION + HIGH_RESOLUTION:
        scale = rng.choice(LOW_SCALES if kind < LOW_RESOLUTION else HIGH_SCALES)
        return (round(height * scale), round(width * scale)), (0, 0)
    if may_crop and kind < LOW_RESOLUTION + HIGH_RESOLUTION + CROPPED:
        more = (8 * rng.randint(0, height // 16), 8 * rng.randint(0, width // 16))
        return (height + more[0], width + more[1]), (rng.randint(0, more[0]), rng.randint(0, more[1]))
    return target, (0, 0)


class Painter:
    """Draws compositions; keeps every picture decoded, with alpha premultiplied so that edges stay clean."""

    def __init__(self, vocabulary: Sequence[Emoji]) -> None:
        self._pictures: dict[str, Image.Image] = {}
        for emoji in vocabulary:
            with Image.open(emoji.path) as picture:
                self._pictures[emoji.name] = picture.convert("RGBA").convert("RGBa")

    def paint(self, composition: Composition) -> Pixels:
        """The picture as uint8, shape (height, width, 3) of the target size."""
        height, width = composition.target_size
        top, left = composition.crop
        canvas = np.empty((height, width, 3), np.float32)
        canvas[:] = captions.COLOURS[composition.colour]
        count = len(composition.objects)
        side = round(min(height, width / count * (1.0 if count == 1 else 1.2)) * composition.scale)
        for index, name in enumerate(composition.objects):
            centre = (height / 2 - top, width * (2 * index + 1) / (2 * count) - left)
            _paste(canvas, self._pictures[name], side, round(centre[0] - side / 2), round(centre[1] - side / 2))
        picture = Image.fromarray(canvas.round().clip(0, 255).astype(np.uint8))
        if composition.original_size[0] < height:
            small = (composition.original_size[1], composition.original_size[0])
            picture = picture.resize(small, Image.Resampling.BOX).resize((width, height), Image.Resampling.BICUBIC)
        return np.asarray(picture)


def _paste(canvas: npt.NDArray[np.float32], picture: Image.Image, side: int, top: int, left: int) -> None:
    patch = np.asarray(picture.resize((side, side), Image.Resampling.LANCZOS), np.float32)
    height, width = canvas.shape[:2]
    rows, columns = slice(max(0, top), min(height, top + side)), slice(max(0, left), min(width, left + side))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    patch = patch[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    canvas[rows, columns] = canvas[rows, columns] * (1 - patch[..., 3:] / 255) + patch[..., :3]
