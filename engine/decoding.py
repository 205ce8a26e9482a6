"""Latents → pictures, by whichever decoder the plan names; and the checks of latents that a caller brings."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .architecture import Models
from .errors import RequestError
from .memory.plan import MemoryPlan
from .memory.residency import Residency
from .progress import Progress, track
from .request.decoders import DECODERS
from .runners.base import Runner
from .sampling.samplers.base import Array
from .vae import decode, to_pil


def check_latents(latents: Any, models: Models, output_type: str) -> None:
    """Raise `RequestError` for what is no latents, and for a form that pictures have not."""
    channels = models.vae.latent_channels
    if not isinstance(latents, np.ndarray) or latents.ndim != 4 or latents.shape[1] != channels:
        raise RequestError(f"latents must be an array (n, {channels}, height, width) of floats")
    if output_type not in ("pil", "np"):
        raise RequestError(f"output_type is {output_type!r}; choose pil or np")


def decoded(
    models: Models,
    runners: Mapping[str, Runner],
    residency: Residency,
    plan: MemoryPlan,
    latents: Array,
    output_type: str,
    progress: Progress,
) -> Any:
    """Latents (n, C, h, w) → PIL pictures (`pil`) or arrays (n, H, W, 3) in [0, 1] (`np`), each as it is done."""
    vae, (height, width) = runners[DECODERS[plan.workload.decoder]], latents.shape[2:]
    side = models.vae.downscale
    with (
        residency.phase(plan, vae.name, progress),
        track(progress, "decode", total=len(latents), unit="image") as advance,
    ):
        shape = (len(latents), height * side, width * side, 3)
        pictures: Any = [] if output_type == "pil" else np.empty(shape, np.float32)
        for index, picture in enumerate(decode(vae, latents, models.scaling_factor(vae.name))):
            if output_type == "pil":
                pictures.append(to_pil(picture))
            else:
                pictures[index] = picture
            advance()
    return pictures
