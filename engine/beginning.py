"""What the loop starts from: noise, or a picture with as much noise as belongs to the first step.

Draws come in diffusers' order, each picture's from its own stream: for the latents of the picture, for the noise, and
with a mask for the latents of the masked picture.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .architecture import VaeArchitecture
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


def begin(
    request: ResolvedRequest,
    vae: VaeArchitecture,
    noise: Noise,
    schedule: Schedule,
    encode: Encode,
    *,
    sigma: float,
    told: bool,
    plain: bool,
) -> Beginning:
    """What a pass starts from: noise alone, the caller's own or drawn, or a picture.

    `schedule`: of the first part. `sigma`: of noise alone. `told`: whether a model is told the masked picture,
    `plain`: whether one is not.
    """
    shape = vae.latent_shape(request.height, request.width)
    if request.pictures is not None:
        return _from_pictures(
            request, request.pictures, vae, noise, schedule, encode, sigma=sigma, told=told, plain=plain
        )
    latents = noise.normal(shape) if request.latents is None else request.latents
    return Beginning(latents=latents * np.float32(sigma))


def _from_pictures(
    request: ResolvedRequest,
    given: PictureInput,
    vae: VaeArchitecture,
    noise: Noise,
    schedule: Schedule,
    encode: Encode,
    *,
    sigma: float,
    told: bool,
    plain: bool,
) -> Beginning:
    """A picture, and the noise of the schedule's first evaluation.

    With a mask and a strength of 1 nothing of the picture is left in what is painted anew, as in diffusers.
    """
    images, shape = request.images, vae.latent_shape(request.height, request.width)
    if given.latents is not None:
        clean = spread(given.latents, images)
    elif not plain and given.masks and given.strength == 1 and given.denoising_start is None:
        clean = np.zeros((images, *shape), np.float32)  # nobody asks for it, and diffusers draws nothing
    else:
        clean = _sampled(encode(given.pictures), noise, shape, images)
    fresh = clean  # where none is added
    if given.denoising_start is None or given.masks:
        fresh = noise.normal(shape) if request.latents is None else request.latents
    inpainting = None
    if given.masks:
        masked = None
        if told:
            masked = _sampled(encode([_hidden(*pair) for pair in _pairs(given)]), noise, shape, images)
        elif given.latents is None:
            noise.normal(shape)  # diffusers encodes what nobody is told
        masks = spread(given.latent_masks(vae.downscale), images)
        inpainting = Inpainting(masks=masks, clean=clean, noise=fresh, masked=masked)
    if given.denoising_start is not None:
        latents = clean
    elif given.masks and given.strength == 1:
        latents = fresh * np.float32(sigma)
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
