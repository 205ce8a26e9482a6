"""What inpainting keeps of a picture: after every step in its latents, and in the end in its pixels."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from .pictures_in.input import Array, PictureInput, floats
from .sampling.begin import noised
from .sampling.samplers.base import Schedule
from .vae import to_uint8


@dataclass(frozen=True, kw_only=True)
class Inpainting:
    """Of every picture: (pictures, C, h, w) each, `masks` (pictures, 1, h, w) of zeros and ones."""

    masks: Array
    clean: Array
    """The picture's latents."""
    noise: Array
    masked: Array | None = None
    """The latents of the picture without what is painted anew, for models that are told them."""

    def kept(self, latents: Array, schedule: Schedule, evaluation: int) -> Array:
        """Latents after an evaluation, and where the mask is black the picture's own, as noisy as the next takes them.

        The rule is that of diffusers' `StableDiffusionXLInpaintPipeline`, for models that know nothing of masks.
        """
        own = noised(self.clean, self.noise, schedule, evaluation + 1)
        found = (1 - self.masks) * own + self.masks * latents
        return np.asarray(found, np.float32)

    @property
    def beside(self) -> Array | None:
        """What an inpainting model takes behind the latents: (pictures, 1 + C, h, w)."""
        return None if self.masked is None else np.concatenate([self.masks, self.masked], axis=1)


def finishing(given: PictureInput | None, images: int) -> Callable[[int, Array], Array] | None:
    """What is done to each decoded picture (its number, (H, W, 3) in [0, 1]) of so many; None: nothing."""
    if given is None or not (given.crops or given.paste_back):
        return None
    return partial(_put_back if given.crops else paste_back, given, images)


def _put_back(given: PictureInput, images: int, index: int, picture: Array) -> Array:
    """Picture `index`, of a part alone, as the whole."""
    return given.at(index, images).crops[0].pasted(to_uint8(picture))


def paste_back(given: PictureInput, images: int, index: int, picture: Array) -> Array:
    """Picture `index` of so many `images`, (H, W, 3) in [0, 1], with what is black in the mask taken from the input."""
    one = given.at(index, images)
    mask, own = one.masks[0][:, :, None], floats(one.pictures[0])
    return np.where(mask == 0, own, np.where(mask == 1, picture, own + (picture - own) * mask))
