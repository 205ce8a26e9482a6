"""Where the steps lie: scheduler config + sampler + schedule name → `Schedule`, as diffusers would place them.

The reference for every sampler is `XScheduler.from_config(config, use_karras_sigmas=…, timestep_spacing=…)` followed
by `set_timesteps`. What differs, each where diffusers goes wrong or has nothing:
- heun and dpmpp_sde obey `rescale_betas_zero_snr` too;
- `trailing` never lays one timestep too many (for 61 steps diffusers asks the model at -1), and `leading` never one
  past the last trained (for 1000 steps) where the timestep is an index into the trained levels;
- schedules, `timesteps` and `sigmas` that a reference lacks are placed by the rule of its nearest relative;
- levels that do not fall are an error where the solver would divide by their difference.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from math import isfinite, isinf
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import IncompatibleError, RequestError
from . import timesteps as placement
from .samplers.base import Sampler, Schedule
from .samplers.table import SAMPLERS, find_sampler
from .trained_levels import training_signal

__all__ = ["Schedule", "evaluation_timesteps", "make_schedule", "split"]

Levels = npt.NDArray[np.float64]
Ladder = npt.NDArray[np.float32]

COMMON_DEFAULTS: Mapping[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
    "timestep_spacing": "linspace",
    "steps_offset": 0,
    "rescale_betas_zero_snr": False,
    "final_sigmas_type": "zero",
    "set_alpha_to_one": True,
    "clip_sample": False,
    "clip_sample_range": 1.0,
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "sigma_min": None,
    "sigma_max": None,
    "original_inference_steps": 50,
    "timestep_scaling": 10.0,
}
"""What diffusers' constructors assume for a key that the config leaves out; `Sampler.defaults` has the exceptions."""

ALLOWED: Mapping[str, tuple[object, ...]] = {
    "prediction_type": ("epsilon", "v_prediction"),
    "timestep_spacing": ("linspace", "leading", "trailing"),
    "final_sigmas_type": ("zero", "sigma_min"),
    "thresholding": (False, None),
    "interpolation_type": ("linear", None),
    "timestep_type": ("discrete", None),
    "use_beta_sigmas": (False, None),
    "use_lu_lambdas": (False, None),
    "use_flow_sigmas": (False, None),
    "lambda_min_clipped": (float("-inf"), None),
}
"""Keys of a scheduler config, and the values under which its pictures are made as here."""


def make_schedule(
    config: Mapping[str, Any],
    *,
    sampler: Any = "euler",
    schedule: str = "default",
    num_inference_steps: int = 50,
    timesteps: Sequence[float] | None = None,
    sigmas: Sequence[float] | None = None,
) -> Schedule:
    """Place the steps. `config` is diffusers' scheduler_config.json as a mapping.

    `schedule="default"` is the config's own. `timesteps` (falling, one a step) or `sigmas` (falling, one more than
    steps, the last usually 0) replace `num_inference_steps`, as in diffusers' pipelines.
    Raises `RequestError` (names, counts, custom values) and `IncompatibleError` (the config).
    """
    row, name = (sampler, schedule) if isinstance(sampler, Sampler) else find_sampler(sampler, schedule)
    settings = _settings(config, row)
    if timesteps is not None and sigmas is not None:
        raise RequestError("both timesteps and sigmas were given; give one of the two.")
    if name != "default" and (timesteps is not None or sigmas is not None):
        raise RequestError(f"timesteps or sigmas were given, and schedule {name!r} too; leave the schedule out.")
    if sigmas is not None:
        return _from_sigmas(_custom_sigmas(sigmas), settings, row)
    if timesteps is not None:
        return _from_timesteps(_custom_timesteps(timesteps, settings, row), settings, row)
    steps = _check_steps(num_inference_steps, settings["num_train_timesteps"])
    if name == "default" and settings["use_karras_sigmas"]:
        name = "karras"
    elif name == "default" and settings["use_exponential_sigmas"]:
        name = "exponential"
    if name in ("karras", "exponential"):
        return _from_curve(name, steps, settings, row)
    return _from_spacing(name, steps, settings, row)


def split(schedule: Schedule, denoising_end: float) -> tuple[Schedule, Schedule]:
    """Cut a schedule in two, for an ensemble of experts: the base's part, then the refiner's.

    `denoising_end` in (0, 1) is the share of the trained timesteps that the base walks. By diffusers' rule
    (`denoising_end` of the base pipeline, `denoising_start` of the image-to-image one) the cut is the timestep
    T - denoising_end·T. Where a step has two evaluations it may fall between them (with heun it always does): the
    second part then takes the half-done step from its beginning, as diffusers does. A part may be empty.
    Base and refiner with unlike scheduler configs: split each one's own schedule.
    Raises `RequestError` for a share outside (0, 1).
    """
    if not 0 < denoising_end < 1:
        raise RequestError(f"denoising_end is {denoising_end}; it must lie between 0 and 1, 0.8 is usual.")
    trained = schedule.num_train_timesteps
    cutoff = round(trained - denoising_end * trained)
    early = sum(t >= cutoff for t in schedule.timesteps)
    late = len(schedule.timesteps) - early
    if SAMPLERS[schedule.sampler].again != "never" and late % 2 == 0:
        late += 1
    middle = len(schedule.timesteps) - late
    return (
        replace(schedule, end=max(schedule.begin, min(schedule.end, early))),
        replace(schedule, begin=min(schedule.end, max(schedule.begin, middle))),
    )


def evaluation_timesteps(schedule: Schedule) -> Ladder:
    """(evaluations of this part,) float32: every timestep that the model will be asked at, in order."""
    return np.asarray(schedule.timesteps[schedule.begin : schedule.end], dtype=np.float32)


def _from_spacing(name: str, steps: int, settings: Mapping[str, Any], row: Sampler) -> Schedule:
    ladder = _ladder(settings, keep_zero=row.spacing in ("integer", "distilled"))
    spacing = settings["timestep_spacing"]
    if name == "sgm_uniform":
        spacing = "trailing"
    if row.spacing == "distilled" and name == "default":
        timesteps = placement.distilled(steps, settings)
    else:
        timesteps = placement.spaced(steps, spacing, settings, row)
    if row.spacing != "spread":
        timesteps = np.minimum(timesteps, len(ladder) - 1)
    levels, clean = placement.levels_at(timesteps, ladder, row), _final_level(settings, row, ladder)
    landings = placement.stride_landings(timesteps, ladder, steps, clean) if row.spacing == "integer" else None
    return _assemble(row, name, settings, ladder, timesteps, np.append(levels, clean), landings, spacing)


def _from_curve(name: str, steps: int, settings: Mapping[str, Any], row: Sampler) -> Schedule:
    ladder = _ladder(settings, keep_zero=False)
    span = ladder[::-1].astype(np.float64)
    if row.spacing == "spread":
        # These reach from the first spaced timestep to the last; the others over all that was trained.
        span = placement.levels_at(placement.spaced(steps, settings["timestep_spacing"], settings, row), ladder, row)
    elif row.spacing == "distilled":
        # Below the lowest distilled timestep an LCM returns its input.
        span = span[: -(len(ladder) // settings["original_inference_steps"]) + 1 or None]
    levels = placement.curve(name, span, steps, settings)
    clean = _final_level(settings, row, ladder)
    if row.name == "unipc" and clean > 0:
        clean = float(levels[-1])
    elif row.spacing == "integer":
        clean = 0.0  # the curve itself goes down to the lowest trained level
    timesteps = placement.timesteps_at(levels, ladder, row, name)
    return _assemble(row, name, settings, ladder, timesteps, np.append(levels, clean))


def _from_timesteps(timesteps: Levels, settings: Mapping[str, Any], row: Sampler) -> Schedule:
    ladder = _ladder(settings, keep_zero=row.spacing in ("integer", "distilled"))
    levels = placement.levels_at(timesteps, ladder, row)
    sigmas = np.append(levels, _final_level(settings, row, ladder))
    return _assemble(row, "default", settings, ladder, timesteps, sigmas)


def _from_sigmas(sigmas: Ladder, settings: Mapping[str, Any], row: Sampler) -> Schedule:
    ladder = _ladder(settings, keep_zero=False)
    timesteps = placement.timesteps_at(sigmas[:-1], ladder, row, "default")
    return _assemble(row, "default", settings, ladder, timesteps, sigmas.astype(np.float64))


def _assemble(
    row: Sampler,
    name: str,
    settings: Mapping[str, Any],
    ladder: Ladder,
    timesteps: Levels,
    sigmas: Levels,
    landings: Levels | None = None,
    spacing: str | None = None,
) -> Schedule:
    levels = _as_float32(sigmas)
    _check_levels(levels, settings, row, name)
    called_at, asked = sigmas[:-1], timesteps
    if row.again == "end":
        called_at, asked = np.repeat(called_at, 2)[1:], np.repeat(asked, 2)[1:]
    elif row.again == "middle":
        middles = np.sqrt(called_at[:-1] * called_at[1:])
        called_at = _interleave(called_at, middles)
        asked = _interleave(asked, placement.timesteps_at(middles, ladder, row, name))
    start = 1.0
    if row.scaled_input:
        start = max(levels)
        if (spacing or settings["timestep_spacing"]) == "leading":
            start = (start**2 + 1) ** 0.5
    return Schedule(
        sampler=row.name,
        name=name,
        prediction_type=settings["prediction_type"],
        num_train_timesteps=settings["num_train_timesteps"],
        timesteps=_as_float32(asked),
        evaluation_sigmas=_as_float32(called_at),
        sigmas=levels,
        landings=levels[1:] if landings is None else _as_float32(landings),
        init_noise_sigma=start,
        clip_sample_range=settings["clip_sample_range"] if row.clips and settings["clip_sample"] else None,
        timestep_scaling=settings["timestep_scaling"],
        end=len(asked),
    )


def _as_float32(values: Levels) -> tuple[float, ...]:
    return tuple(float(value) for value in values.astype(np.float32))


def _interleave(whole: Levels, between: Levels) -> Levels:
    woven = np.empty(len(whole) + len(between))
    woven[::2], woven[1::2] = whole, between
    return woven


def _settings(config: Mapping[str, Any], row: Sampler) -> dict[str, Any]:
    # A config written by a diffusers scheduler object lists the keys that were only its own class's defaults.
    ignored = set(config.get("_use_default_values", ()))
    present = {key: value for key, value in config.items() if key not in ignored}
    for key, allowed in ALLOWED.items():
        if key in present and present[key] not in allowed:
            choices = ", ".join(repr(v) for v in allowed if v is not None)
            raise IncompatibleError(f"the checkpoint's scheduler config has {key} {present[key]!r}; known: {choices}.")
    return {**COMMON_DEFAULTS, **row.defaults, **present}


def _ladder(settings: Mapping[str, Any], *, keep_zero: bool) -> Ladder:
    signal = training_signal(settings, keep_zero=keep_zero)
    with np.errstate(divide="ignore", invalid="ignore"):
        ladder: Ladder = np.sqrt((np.float32(1) - signal) / signal)
    return ladder


def _final_level(settings: Mapping[str, Any], row: Sampler, ladder: Ladder) -> float:
    """The level after the last step: clean, or the lowest trained one where the reference has that choice."""
    if row.spacing == "integer":
        return 0.0 if settings["set_alpha_to_one"] else float(ladder[0])
    chooses = row.name == "euler" or row.spacing == "strided"
    return float(ladder[0]) if chooses and settings["final_sigmas_type"] == "sigma_min" else 0.0


def _check_steps(steps: object, trained: int) -> int:
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or not 1 <= steps <= trained:
        raise RequestError(f"num_inference_steps is {steps!r}; it must be a whole number from 1 to {trained}.")
    return int(steps)


def _custom_timesteps(timesteps: Sequence[float], settings: Mapping[str, Any], row: Sampler) -> Levels:
    values = np.asarray(timesteps, dtype=np.float64)
    last = settings["num_train_timesteps"] - 1
    if row.spacing != "spread":
        values = np.trunc(values)
    if values.ndim != 1 or not len(values) or not (np.diff(values) < 0).all() or not _within(values, last):
        raise RequestError(f"timesteps is {list(timesteps)}; it must fall from step to step within {last}..0.")
    return values


def _within(values: Levels, last: int) -> bool:
    return bool(np.isfinite(values).all() and values[0] <= last and values[-1] >= 0)


def _custom_sigmas(sigmas: Sequence[float]) -> Ladder:
    values = np.asarray(sigmas, dtype=np.float32)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all() or not (np.diff(values) < 0).all():
        raise RequestError(f"sigmas is {list(sigmas)}; it must hold two values or more, each below the one before.")
    if values[-1] < 0:
        raise RequestError(f"sigmas ends at {values[-1]}; the last must be 0 or more.")
    return values


def _check_levels(levels: Sequence[float], settings: Mapping[str, Any], row: Sampler, name: str) -> None:
    if not all(isfinite(level) for level in levels[1:]):
        raise IncompatibleError("the checkpoint's scheduler config gives noise levels that are not finite.")
    if isinf(levels[0]) and settings["prediction_type"] == "epsilon":
        raise IncompatibleError(
            f"the checkpoint begins at zero signal and predicts noise, of which {row.name} can make nothing; "
            "zero terminal SNR needs v_prediction."
        )
    falls = all(b < a for a, b in pairwise(levels[:-1]))
    if row.spacing == "strided" and not falls:
        raise RequestError(
            f"{len(levels) - 1} steps of {row.name} do not fit on schedule {name!r}: two would have the same noise "
            "level; take fewer steps, or schedule 'sgm_uniform'."
        )
