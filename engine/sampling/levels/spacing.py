"""Timesteps of a schedule by number of steps, by the formulas of diffusers' `set_timesteps`: (steps,), falling."""

import numpy as np
import numpy.typing as npt

from ...errors import RequestError
from .settings import SchedulerSettings, TimestepSpacing

Levels = npt.NDArray[np.float64]
"""Timesteps or noise levels of a schedule, in the order of its steps."""


def fractional(steps: int, settings: SchedulerSettings) -> Levels:
    """Spread evenly, at fractions of a trained timestep where that is even."""
    even = np.linspace(0, settings.num_train_timesteps - 1, steps).astype(np.float32)
    return _spaced(steps, even.astype(np.float64), settings)


def whole(steps: int, settings: SchedulerSettings) -> Levels:
    """Whole timesteps, within those that were trained."""
    even = np.linspace(0, settings.num_train_timesteps - 1, steps).round()
    return _within(_spaced(steps, even, settings), settings)


def one_left_out(steps: int, settings: SchedulerSettings) -> Levels:
    """Whole timesteps out of one more than asked for: that which falls to (nearly) clean latents is left out."""
    even = np.linspace(0, settings.num_train_timesteps - 1, steps + 1).round()
    return _within(_spaced(steps, even, settings), settings)


def distilled(steps: int, settings: SchedulerSettings) -> Levels:
    """Out of those that an LCM was distilled on. Raises `RequestError` where there are too few."""
    taught = settings.taught_steps
    if steps > taught:
        raise RequestError(
            f"num_inference_steps is {steps}; lcm and tcd know 1..{taught} on this checkpoint, 4 to 8 are usual."
        )
    falling = np.arange(taught, 0, -1) * (settings.num_train_timesteps // taught) - 1
    chosen = np.floor(np.linspace(0, taught, steps, endpoint=False)).astype(np.int64)
    return np.asarray(falling[chosen], dtype=np.float64)


def _spaced(steps: int, even: Levels, settings: SchedulerSettings) -> Levels:
    """Table 2 of Lin et al. (2305.08891); `even` are the timesteps of `linspace`, rising."""
    trained, count = settings.num_train_timesteps, len(even)
    match settings.timestep_spacing:
        case TimestepSpacing.TRAILING:
            return np.asarray(np.arange(trained, 0, -trained / steps)[:steps].round() - 1, dtype=np.float64)
        case TimestepSpacing.LEADING:
            rising = np.arange(count) * (trained // count) + settings.steps_offset
            return np.asarray(rising[::-1][:steps], dtype=np.float64)
        case TimestepSpacing.LINSPACE:
            return even[::-1][:steps]


def _within(timesteps: Levels, settings: SchedulerSettings) -> Levels:
    return np.minimum(timesteps, settings.num_train_timesteps - 1)
