"""The denoising loop: a model, a schedule and noise → latents, step by step.

    schedule = make_schedule(config, sampler=SAMPLERS["dpmpp_2m"], num_inference_steps=30)
    latents = noise.normal((4, 128, 128)) * schedule.init_noise_sigma
    base, refiner = split(schedule, 0.8)
    latents = yield from denoise(base_model, latents, base, noise)
    latents = yield from denoise(refiner_model, latents, refiner, noise)     # the leftover noise is in the latents

What goes from one part to the next are the latents as diffusers' scheduler holds them; histories start anew.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..errors import NumericError, RequestError
from .levels.settings import PredictionType
from .samplers.base import Array, Estimate, Noise, Schedule, alpha_sigma


class Model(Protocol):
    """A U-Net with its conditioning and guidance."""

    def __call__(self, latents: Array, evaluation: int, /) -> Array:
        """Predict noise or velocity, by the checkpoint's prediction type.

        `latents`: (pictures, C, H, W) float32 of unit variance. `evaluation` counts the calls of this part from 0: the
        timestep is `evaluation_timesteps(schedule)[evaluation]`.
        """


@dataclass(frozen=True, kw_only=True)
class Step:
    """Where the loop stands after an evaluation of the model (with heun and dpmpp_sde there are two a step)."""

    index: int
    """Counts the evaluations of this part from 0."""
    timestep: float
    latents: Array
    denoised: Array
    """The model's latest guess of what they come to: `latents` without their noise."""

    @property
    def arrays(self) -> dict[str, Array]:
        """What a callback is given."""
        return {"latents": self.latents, "denoised": self.denoised}


def denoise(
    model: Model, latents: Array, schedule: Schedule, noise: Noise, *, eta: float = 0.0
) -> Generator[Step, Array | None, Array]:
    """Walk the schedule's part: yields a `Step` after every evaluation, and returns the latents after the last.

    `latents`: (pictures, C, H, W) float32, at the part's first noise level: unit variance times
    `schedule.init_noise_sigma` at the start, or what the part before returned. `eta` (0..1) matters to ddim alone.
    `send` other latents to go on from those, as diffusers does with what `callback_on_step_end` returns; those sent
    after the last step are returned. Close it to stop. Raises `NumericError` at the first NaN or Inf, naming the
    evaluation (counted in the whole schedule), and what `check_replacement` raises.
    """
    estimator = _Estimator(model, schedule)
    walk = schedule.sampler.walk(latents, estimator, schedule, noise, eta)
    resume_from: Array | None = None  # a generator begins with None
    for evaluation in schedule.evaluations:
        with np.errstate(over="ignore", invalid="ignore"):  # numpy's warning would only come before the error
            latents = next(walk) if resume_from is None else walk.send(resume_from)
        _check_finite(latents, schedule, evaluation)
        sent = yield Step(
            index=evaluation - schedule.begin,
            timestep=schedule.timesteps[evaluation],
            latents=latents,
            denoised=estimator.latest,
        )
        resume_from = latents = latents if sent is None else check_replacement(sent, latents)
    return latents


def check_replacement(sent: Array, latents: Array) -> Array:
    """The latents to go on with in place of `latents`, as float32.

    Raises `RequestError` for another shape, and `NumericError` for NaN or Inf.
    """
    if sent.shape != latents.shape:
        raise RequestError(f"the latents to go on with have shape {sent.shape}; it must stay {latents.shape}.")
    with np.errstate(over="ignore"):
        replacement = sent.astype(np.float32, copy=False)
    if not np.isfinite(replacement).all():
        raise NumericError("the latents to go on with hold NaN or Inf; give finite ones, or None to go on.")
    return replacement


class _Estimator:
    """The model as the samplers see it: any latents in, denoised latents and noise out."""

    def __init__(self, model: Model, schedule: Schedule) -> None:
        self._model = model
        self._schedule = schedule
        self.latest: Array
        """The denoised latents of the last call."""

    def __call__(self, latents: Array, evaluation: int) -> Estimate:
        schedule = self._schedule
        alpha, sigma = alpha_sigma(schedule.evaluation_sigmas[evaluation])
        scaled = latents * alpha if schedule.sampler.scaled_input else latents
        prediction = self._model(scaled, evaluation - schedule.begin)
        _check_finite(prediction, schedule, evaluation)  # here too: clipping makes a number of Inf
        if schedule.prediction_type is PredictionType.EPSILON:
            denoised, noise = (scaled - prediction * sigma) / alpha, prediction
        else:
            denoised, noise = scaled * alpha - prediction * sigma, prediction * alpha + scaled * sigma
        limit = schedule.clip_sample_range
        if limit is not None:
            denoised = denoised.clip(-limit, limit)
        self.latest = _float32(denoised)
        return Estimate(self.latest, _float32(noise))


def _float32(values: np.ndarray) -> Array:
    # Changes nothing: a float32 array times a Python number is float32. numpy's types do not know it.
    return np.asarray(values, dtype=np.float32)


def _check_finite(values: Array, schedule: Schedule, evaluation: int) -> None:
    if not np.isfinite(values).all():
        raise NumericError(
            f"NaN or Inf in the latents after evaluation {evaluation + 1} of {len(schedule.timesteps)} "
            f"({schedule.sampler.name}, timestep {schedule.timesteps[evaluation]:g}); "
            "try another recipe or a lower guidance_scale."
        )
