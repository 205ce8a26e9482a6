"""What the loop starts from: noise, or a picture with as much noise as belongs to the first step.

Draws come in diffusers' order, each picture's from its own stream: for the latents of the picture, for the noise, and
with a mask for the latents of the masked picture.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .inpainting import Inpainting
from .pictures_in.input import WHITE, Array, PictureInput, floats, spread
from .request.request import ResolvedRequest
from .sampling.begin import noised
from .sampling.samplers.base import Noise, Schedule
from .vae_encode import LatentDistribution

Encode = Callable[[Sequence[np.ndarray]], LatentDistribution]
"""Pictures (H, W, 3) → their latents' distribution."""


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """Latents (pictures, C, h, w) at the first noise level, and what inpainting keeps."""

    latents: Array
    inpainting: Inpainting | None = None


def from_noise(request: ResolvedRequest, noise: Noise, shape: tuple[int, ...], init_noise_sigma: float) -> Beginning:
    """Noise alone: the caller's own, or drawn."""
    latents = noise.normal(shape) if request.latents is None else request.latents
    return Beginning(latents=latents * np.float32(init_noise_sigma))


def from_pictures(
    request: ResolvedRequest,
    given: PictureInput,
    noise: Noise,
    schedule: Schedule,
    encode: Encode,
    *,
    shape: tuple[int, ...],
    downscale: int,
    init_noise_sigma: float,
    beside: bool,
) -> Beginning:
    """A picture, and the noise of the schedule's first evaluation.

    `beside`: whether a model is told the masked picture. With a mask and a strength of 1 nothing of the picture is left
    in what is painted anew, as in diffusers.
    """
    images = request.images
    if given.latents is not None:
        clean = spread(given.latents, images)
    else:
        clean = _sampled(encode(given.pictures), noise, shape, images)
    drawn = given.denoising_start is None or bool(given.masks)
    fresh = clean if not drawn else noise.normal(shape) if request.latents is None else request.latents
    inpainting = None
    if given.masks:
        masks = spread(given.latent_masks(downscale), images)
        masked = None
        if given.latents is None:  # latents cannot be masked
            draw = noise.normal(shape)
            if beside:
                hidden = [_hidden(picture, mask) for picture, mask in _pairs(given)]
                found = encode(hidden)
                masked = LatentDistribution(
                    mean=spread(found.mean, images), deviation=spread(found.deviation, images)
                ).sample(draw)
        inpainting = Inpainting(masks=masks, clean=clean, noise=fresh, masked=masked)
    if given.denoising_start is not None:
        latents = clean
    elif given.masks and given.strength == 1 and given.first_step is None:
        latents = fresh * np.float32(init_noise_sigma)
    else:
        latents = noised(clean, fresh, schedule, schedule.begin)
    return Beginning(latents=np.asarray(latents, np.float32), inpainting=inpainting)


def _sampled(found: LatentDistribution, noise: Noise, shape: tuple[int, ...], images: int) -> Array:
    """Latents of every picture."""
    whole = LatentDistribution(mean=spread(found.mean, images), deviation=spread(found.deviation, images))
    return whole.sample(noise.normal(shape))


def _pairs(given: PictureInput) -> list[tuple[np.ndarray, Array]]:
    """Each picture with its mask."""
    count = max(len(given.pictures), len(given.masks))
    return [
        (given.pictures[i * len(given.pictures) // count], given.masks[i * len(given.masks) // count])
        for i in range(count)
    ]


def _hidden(picture: np.ndarray, mask: Array) -> np.ndarray:
    """The picture, grey where the mask is white."""
    return np.where(mask[:, :, None] < WHITE, floats(picture), np.float32(0.5))
