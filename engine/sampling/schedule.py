"""Where the steps lie: scheduler config + sampler + schedule name → `Schedule`, as diffusers would place them.

The reference for every sampler is `XScheduler.from_config(config, use_karras_sigmas=…, timestep_spacing=…)` followed
by `set_timesteps`. What differs, each where diffusers goes wrong or has nothing:
- heun and dpmpp_sde obey `rescale_betas_zero_snr` too;
- `trailing` never lays one timestep too many (for 61 or 103 steps diffusers asks the model at -1, and a curve ends
  there), and `leading` never one past the last trained (for 1000 steps) where the timestep is an index into those;
- schedules, `timesteps` and `sigmas` that a reference lacks are placed by the rule of its nearest relative;
- levels that do not fall are an error where the solver would divide by their difference.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from math import isfinite, isinf

import numpy as np
import numpy.typing as npt

from ..errors import IncompatibleError, RequestError
from .levels.config import SchedulerConfig
from .levels.curves import CURVES, LADDERS
from .levels.laid import Laid, along_curve, at_sigmas, at_timesteps, by_number
from .levels.settings import PredictionType, SchedulerSettings, TimestepSpacing
from .samplers.base import Sampler, Schedule

__all__ = ["Schedule", "evaluation_timesteps", "make_schedule", "split"]


def make_schedule(
    config: SchedulerConfig,
    *,
    sampler: Sampler,
    schedule: str = "default",
    num_inference_steps: int = 50,
    timesteps: Sequence[float] | None = None,
    sigmas: Sequence[float] | None = None,
) -> Schedule:
    """Place the steps of a checked request: `schedule` is a key of `SCHEDULES`, and `default` is the config's own.

    `timesteps` (falling, one a step) or `sigmas` (falling, one more than steps, the last usually 0) replace
    `num_inference_steps`, as in diffusers' pipelines. Raises `RequestError` for what does not fit the checkpoint, and
    `IncompatibleError` for a checkpoint whose noise levels the sampler can make nothing of.
    """
    settings, place = config.filled(sampler.defaults), sampler.placement
    if sigmas is not None:
        return _assemble(sampler, schedule, settings, at_sigmas(sigmas, settings, place))
    if timesteps is not None:
        return _assemble(sampler, schedule, settings, at_timesteps(timesteps, settings, place))
    trained = settings.num_train_timesteps
    if num_inference_steps > trained:
        raise RequestError(f"num_inference_steps is {num_inference_steps}; this checkpoint takes 1 to {trained}.")
    name = _configured(settings) if schedule == "default" else schedule
    if curve := CURVES.get(name):
        laid = along_curve(name, curve, place.curve_span, num_inference_steps, settings, place)
    elif ladder := LADDERS.get(name):
        laid = along_curve(name, ladder, place.ladder, num_inference_steps, settings, place)
    elif name == "sgm_uniform":
        settings = replace(settings, timestep_spacing=TimestepSpacing.TRAILING)
        laid = by_number(num_inference_steps, place.spaced, settings, place)
    else:
        laid = by_number(num_inference_steps, place.default, settings, place)
    return _assemble(sampler, name, settings, laid)


def split(schedule: Schedule, denoising_end: float) -> tuple[Schedule, Schedule]:
    """Cut a schedule in two, for an ensemble of experts: the base's part, then the refiner's.

    `denoising_end` in (0, 1) is the share of the trained timesteps that the base walks. By diffusers' rule
    (`denoising_end` of the base pipeline, `denoising_start` of the image-to-image one) the cut is the timestep
    T - denoising_end·T. Where a step has two evaluations it may fall between them (with heun it always does): the
    second part then takes the half-done step from its beginning, as diffusers does. A part may be empty.
    Base and refiner with unlike scheduler configs: split each one's own schedule.
    """
    trained = schedule.num_train_timesteps
    cutoff = round(trained - denoising_end * trained)
    early = sum(t >= cutoff for t in schedule.timesteps)
    late = len(schedule.timesteps) - early
    late += (late + 1) % schedule.sampler.calls.per_step  # whole steps, of which the last has one call
    middle = len(schedule.timesteps) - late
    return (
        replace(schedule, end=max(schedule.begin, min(schedule.end, early))),
        replace(schedule, begin=min(schedule.end, max(schedule.begin, middle))),
    )


def evaluation_timesteps(schedule: Schedule) -> npt.NDArray[np.float32]:
    """(evaluations of this part,) float32: every timestep that the model will be asked at, in order."""
    return np.asarray(schedule.timesteps[schedule.begin : schedule.end], dtype=np.float32)


def _configured(settings: SchedulerSettings) -> str:
    """The schedule that the checkpoint's config names."""
    if settings.use_karras_sigmas:
        return "karras"
    return "exponential" if settings.use_exponential_sigmas else "default"


def _assemble(sampler: Sampler, name: str, settings: SchedulerSettings, laid: Laid) -> Schedule:
    sigmas = _as_float32(laid.sigmas)
    _check(sigmas, settings, sampler, name)
    called_at, timesteps = sampler.calls.lay(
        laid.sigmas[:-1],
        laid.timesteps,
        lambda levels: sampler.placement.timesteps_at(levels, laid.train_sigmas, name),
    )
    start = max(sigmas) if sampler.scaled_input else 1.0
    if sampler.scaled_input and settings.timestep_spacing is TimestepSpacing.LEADING:
        start = (start**2 + 1) ** 0.5
    return Schedule(
        sampler=sampler,
        name=name,
        prediction_type=settings.prediction_type,
        num_train_timesteps=settings.num_train_timesteps,
        timesteps=_as_float32(timesteps),
        evaluation_sigmas=_as_float32(called_at),
        sigmas=sigmas,
        sigmas_next=_as_float32(laid.sigmas_next),
        init_noise_sigma=start,
        clip_sample_range=settings.clip_sample_range if sampler.clips and settings.clip_sample else None,
        timestep_scaling=settings.timestep_scaling,
        train_sigmas=_as_float32(laid.train_sigmas),
        end=len(timesteps),
    )


def _as_float32(values: npt.NDArray[np.floating]) -> tuple[float, ...]:
    return tuple(float(value) for value in values.astype(np.float32))


def _check(sigmas: Sequence[float], settings: SchedulerSettings, sampler: Sampler, name: str) -> None:
    if not all(isfinite(sigma) for sigma in sigmas[1:]):
        raise IncompatibleError("the checkpoint's scheduler config gives noise levels that are not finite.")
    if isinf(sigmas[0]) and settings.prediction_type is PredictionType.EPSILON:
        raise IncompatibleError(
            f"the checkpoint begins at zero signal and predicts noise, of which {sampler.name} can make nothing; "
            "zero terminal SNR needs v_prediction."
        )
    if sampler.falling and not all(sigma_next < sigma for sigma, sigma_next in pairwise(sigmas[:-1])):
        raise RequestError(
            f"{len(sigmas) - 1} steps of {sampler.name} do not fit on schedule {name!r}: two would have the same noise "
            "level; take fewer steps, or schedule 'sgm_uniform'."
        )
