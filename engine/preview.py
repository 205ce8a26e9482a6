"""Pictures of what a sampler has so far, for nothing: latents → colours by one small matrix.

    for step in pipe.sample(request, pipe.encode(request)):
        pipe.preview(step)[0].save("so-far.png")

Every latent becomes one pixel. The matrix is fitted by least squares to what the engine's own VAE makes of patches of
random colours, when the engine is built, so that it belongs to the checkpoint; ComfyUI (`latent_formats.py`) and
AUTOMATIC1111 (`sd_vae_approx.py`) have such matrices as tables for the public VAEs.
"""

from pathlib import Path
from typing import Any

import numpy as np

from .architecture import Models
from .errors import IncompatibleError, RequestError
from .folder.manifest import read_manifest
from .folder.samples import read_sample
from .sampling.denoise import Step
from .sampling.samplers.base import Array
from .vae import to_pil

Colours = tuple[tuple[float, ...], ...]
"""A row of red, green and blue for each latent channel, then one that is added; -1 is black and 1 white."""
PATCH, PATCHES = 4, 8
_RIDGE = 1e-3
"""Of the latents' variance: keeps the fit sound where a picture has few colours."""


def swatches(channels: int) -> Array:
    """Latents (1, channels, 32, 32) of unit variance: 64 square patches, each of one random colour."""
    colours = np.random.default_rng(0).standard_normal((1, channels, PATCHES, PATCHES), dtype=np.float32)
    return colours.repeat(PATCH, axis=2).repeat(PATCH, axis=3)


def fit_colours(latents: Array, pictures: Array) -> Colours:
    """The matrix of latents (n, C, h, w) of unit variance, and their pictures (n, 3, h·s, w·s) in [-1, 1]."""
    n, channels, height, width = latents.shape
    side = pictures.shape[2] // height
    means = pictures.reshape(n, 3, height, side, width, side).mean(axis=(3, 5), dtype=np.float64)
    rows = latents.transpose(0, 2, 3, 1).reshape(-1, channels).astype(np.float64)
    known = np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
    ridge = np.diag([_RIDGE * len(rows)] * channels + [0.0])
    found = np.linalg.solve(known.T @ known + ridge, known.T @ means.transpose(0, 2, 3, 1).reshape(-1, 3))
    return tuple(tuple(round(float(value), 6) for value in row) for row in found)


def coloured(latents: Array, colours: Colours) -> Array:
    """Latents (n, C, h, w) → pictures (n, h, w, 3) float32 in [0, 1]."""
    matrix = np.asarray(colours, dtype=np.float32)
    pictures = latents.transpose(0, 2, 3, 1) @ matrix[:-1] + matrix[-1]
    return np.asarray(np.clip(pictures / 2 + 0.5, 0, 1), dtype=np.float32)


class Previews:
    """`pipe.preview`: what a `Step`, or latents, look like; a pixel for each latent."""

    def __init__(self, models: Models, folder: Path | None) -> None:
        """`folder`: the engine's, whose sample an engine without a matrix is fitted by, which is coarser."""
        self._models = models
        self._folder = folder
        self._colours = models.latent_colours

    def __call__(self, shown: Step | Array, *, output_type: str = "pil") -> Any:
        """PIL pictures, or with `np` an array (n, h, w, 3) in [0, 1], of a step's latest guess or of latents.

        Computes some million products and loads nothing, so it may be called from a callback. Raises `RequestError` for
        what are no latents, and `IncompatibleError` for an engine that carries neither a matrix nor samples.
        """
        latents = shown.denoised if isinstance(shown, Step) else shown
        channels = self._models.vae.latent_channels
        if not isinstance(latents, np.ndarray) or latents.ndim != 4 or latents.shape[1] != channels:
            raise RequestError(f"a preview is of a Step, or of latents (n, {channels}, height, width) of floats")
        if output_type not in ("pil", "np"):
            raise RequestError(f"output_type is {output_type!r}; choose pil or np")
        self.prepare()
        pictures = coloured(latents, self._colours)
        return pictures if output_type == "np" else [to_pil(picture) for picture in pictures]

    def prepare(self) -> None:
        """Find the matrix, if that has not been done: raises what a call would."""
        if not self._colours:
            self._colours = self._of_sample()

    def _of_sample(self) -> Colours:
        """Fitted to the one picture that the engine carries."""
        sample = None
        if self._folder is not None:
            sample = read_sample(self._folder, read_manifest(self._folder), "vae_decoder")
        if sample is None:
            raise IncompatibleError("this engine says nothing of its latents' colours; build it again for previews")
        inputs, outputs = sample
        return fit_colours(inputs["latents"] * np.float32(self._models.vae.scaling_factor), outputs["image"])
