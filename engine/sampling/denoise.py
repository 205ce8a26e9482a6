"""The denoising loop: a model, a schedule and noise → latents.

    schedule = make_schedule(config, sampler="dpmpp_2m", num_inference_steps=30)
    latents = noise.normal((4, 128, 128)) * schedule.init_noise_sigma
    base, refiner = split(schedule, 0.8)
    latents = denoise(base_model, latents, base, noise)
    latents = denoise(refiner_model, latents, refiner, noise)     # the leftover noise is in the latents

What goes from one part to the next are the latents as diffusers' scheduler holds them; histories start anew.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..errors import NumericError, RequestError
from .samplers.base import Array, Estimate, Estimator, Noise, Schedule, signal_and_noise
from .samplers.table import SAMPLERS


class Model(Protocol):
    """A U-Net with its conditioning and guidance."""

    def __call__(self, latents: Array, evaluation: int, /) -> Array:
        """Predict noise or velocity, by the checkpoint's prediction type.

        `latents`: (pictures, C, H, W) float32 of unit variance. `evaluation` counts the calls of this part from 0: the
        timestep is `evaluation_timesteps(schedule)[evaluation]`.
        """


@dataclass(frozen=True, kw_only=True)
class Step:
    index: int
    timestep: float
    latents: Array


def denoise(
    model: Model, latents: Array, schedule: Schedule, noise: Noise, *, eta: float = 0.0
) -> Generator[Step, Array | None, Array]:
    walk = SAMPLERS[schedule.sampler].walk(latents, _estimator(model, schedule), schedule, noise, eta)
    if not schedule.evaluations:
        return latents
    with np.errstate(over="ignore", invalid="ignore"):
        latents = next(walk)
    for evaluation in schedule.evaluations:
        index, timestep = evaluation - schedule.begin, schedule.timesteps[evaluation]
        _check_finite(latents, schedule, evaluation)
        replacement = yield Step(index=index, timestep=timestep, latents=latents)
        if replacement is not None:
            latents = check_replacement(replacement, latents)
        if evaluation + 1 < schedule.end:
            with np.errstate(over="ignore", invalid="ignore"):
                latents = walk.send(latents)
    return latents


def _estimator(model: Model, schedule: Schedule) -> Estimator:
    """The model as the samplers see it: any latents in, clean latents and noise out."""
    scaled_input = SAMPLERS[schedule.sampler].scaled_input
    limit = schedule.clip_sample_range

    def estimate(latents: Array, evaluation: int) -> Estimate:
        alpha, sigma = signal_and_noise(schedule.evaluation_sigmas[evaluation])
        scaled = latents * alpha if scaled_input else latents
        prediction = model(scaled, evaluation - schedule.begin)
        _check_finite(prediction, schedule, evaluation)  # here too: clipping makes a number of Inf
        if schedule.prediction_type == "epsilon":
            clean, noise = (scaled - prediction * sigma) / alpha, prediction
        else:
            clean, noise = scaled * alpha - prediction * sigma, prediction * alpha + scaled * sigma
        return Estimate(_float32(clean) if limit is None else _float32(clean.clip(-limit, limit)), _float32(noise))

    return estimate


def _float32(values: np.ndarray) -> Array:
    # Changes nothing: a float32 array times a Python number is float32. numpy's types do not know it.
    return np.asarray(values, dtype=np.float32)


def _check_finite(values: Array, schedule: Schedule, evaluation: int) -> None:
    if not np.isfinite(values).all():
        raise NumericError(
            f"NaN or Inf in the latents after evaluation {evaluation + 1} of {len(schedule.timesteps)} "
            f"({schedule.sampler}, timestep {schedule.timesteps[evaluation]:g}); "
            "try another recipe or a lower guidance_scale."
        )


def check_replacement(answer: Array, latents: Array) -> Array:
    if answer.shape != latents.shape:
        raise RequestError(f"on_step returned latents of shape {answer.shape}; they must stay {latents.shape}.")
    with np.errstate(over="ignore"):
        replacement = answer.astype(np.float32, copy=False)
    if not np.isfinite(replacement).all():
        raise NumericError("on_step returned latents with NaN or Inf; return finite ones, or None to go on.")
    return replacement
