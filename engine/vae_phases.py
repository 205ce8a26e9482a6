"""The VAE's phases of a call: pictures to latents, latents to pictures, each loading what it needs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .architecture import Models
from .memory.plan import MemoryPlan
from .memory.residency import Residency
from .progress import Progress, track
from .request.decoders import DECODERS
from .runners.base import Runner
from .sampling.samplers.base import Array
from .vae import decode, to_pil
from .vae_encode import LatentDistribution, encode_picture, joined


@dataclass(frozen=True)
class VaePhases:
    """One call's decoder and encoder, and what they run on."""

    models: Models
    runners: Mapping[str, Runner]
    residency: Residency
    plan: MemoryPlan
    progress: Progress

    def encoded(self, pictures: Sequence[np.ndarray]) -> LatentDistribution:
        """Pictures (H, W, 3), of uint8 or floats in [0, 1] → their latents, one after another."""
        runner, found = self.runners["vae_encoder"], []
        with (
            self.residency.phase(self.plan, runner, self.progress),
            track(self.progress, "encode picture", total=len(pictures), unit="image") as advance,
        ):
            for picture in pictures:
                found.append(encode_picture(runner, picture, self.models.vae.scaling_factor))
                advance()
        return joined(found)

    def decoded(self, latents: Array, output_type: str, *, finish: Callable[[int, Array], Array] | None = None) -> Any:
        """Latents (n, C, h, w) → PIL pictures (`pil`) or arrays (n, H, W, 3) in [0, 1] (`np`), each as it is done.

        `finish`: what is still done to each, from its number and its array.
        """
        runner, (height, width) = self.runners[DECODERS[self.plan.workload.decoder]], latents.shape[2:]
        side, factor = self.models.vae.downscale, self.models.scaling_factor(runner.name)
        with (
            self.residency.phase(self.plan, runner, self.progress),
            track(self.progress, "decode", total=len(latents), unit="image") as advance,
        ):
            shape = (len(latents), height * side, width * side, 3)
            pictures: Any = [] if output_type == "pil" else np.empty(shape, np.float32)
            for index, decoded in enumerate(decode(runner, latents, factor)):
                picture = decoded if finish is None else finish(index, decoded)
                if output_type == "pil":
                    pictures.append(to_pil(picture))
                else:
                    if picture.shape != pictures.shape[1:]:  # a part, put back into the whole
                        pictures = np.empty((len(latents), *picture.shape), np.float32)
                    pictures[index] = picture
                advance()
        return pictures
