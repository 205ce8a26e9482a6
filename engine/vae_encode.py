"""pictures → latents."""

from dataclasses import dataclass

import numpy as np

from .errors import NumericError
from .pictures_in.input import Array, floats
from .runners.base import Runner, call

_LOGVAR = (-30.0, 20.0)
"""Bounds of the logarithm of the variance, as in diffusers."""


@dataclass(frozen=True, kw_only=True)
class LatentDistribution:
    """What a VAE makes of n pictures: a normal distribution of each latent, (n, C, h, w) of unit variance."""

    mean: Array
    deviation: Array

    def sample(self, draw: Array) -> Array:
        """Latents, by draws of N(0, 1)."""
        return self.mean + self.deviation * draw


def encode_picture(runner: Runner, picture: np.ndarray, scaling_factor: float) -> LatentDistribution:
    """One picture (8h, 8w, 3), of uint8 or floats in [0, 1]. Raises `NumericError` for NaN or Inf."""
    image = floats(picture) * np.float32(2) - np.float32(1)
    outputs = call(runner, {"image": np.ascontiguousarray(image.transpose(2, 0, 1)[None])})
    mean, logvar = outputs["mean"], outputs["logvar"]
    if not (np.isfinite(mean).all() and np.isfinite(logvar).all()):
        raise NumericError(
            "the VAE's encoder gave NaN or Inf for the picture; rebuild the engine with the fp32 recipe, or check the "
            "checkpoint's VAE"
        )
    scale = np.float32(scaling_factor)
    return LatentDistribution(mean=mean * scale, deviation=np.exp(np.float32(0.5) * logvar.clip(*_LOGVAR)) * scale)


def joined(found: list[LatentDistribution]) -> LatentDistribution:
    """Those of several pictures as one."""
    return LatentDistribution(
        mean=np.concatenate([one.mean for one in found]), deviation=np.concatenate([one.deviation for one in found])
    )
