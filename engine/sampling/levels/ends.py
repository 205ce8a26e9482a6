"""Where a schedule begins and ends, and where each of its steps does."""

import numpy as np

from .between import interpolated_sigmas
from .settings import FinalSigmasType, SchedulerSettings
from .spacing import Levels, fractional
from .trained import TrainSigmas


def spaced_levels(steps: int, settings: SchedulerSettings, train_sigmas: TrainSigmas) -> Levels:
    """A curve reaches from the first spaced timestep to the last."""
    return interpolated_sigmas(fractional(steps, settings), train_sigmas)


def all_trained(steps: int, settings: SchedulerSettings, train_sigmas: TrainSigmas) -> Levels:
    """A curve reaches over all that was trained."""
    return train_sigmas[::-1].astype(np.float64)


def taught_levels(steps: int, settings: SchedulerSettings, train_sigmas: TrainSigmas) -> Levels:
    """A curve ends at the lowest distilled timestep, below which an LCM returns its input."""
    lowest = settings.num_train_timesteps // settings.taught_steps - 1
    return train_sigmas[lowest:][::-1].astype(np.float64)


def zero(settings: SchedulerSettings, train_sigmas: TrainSigmas, sigmas: Levels) -> float:
    """The last step ends without noise."""
    return 0.0


def as_configured(settings: SchedulerSettings, train_sigmas: TrainSigmas, sigmas: Levels) -> float:
    """The last step ends where `final_sigmas_type` says."""
    return 0.0 if settings.final_sigmas_type is FinalSigmasType.ZERO else float(train_sigmas[0])


def lowest_of_curve(settings: SchedulerSettings, train_sigmas: TrainSigmas, sigmas: Levels) -> float:
    """The same, but `sigma_min` is the curve's own: the last step changes nothing."""
    return 0.0 if settings.final_sigmas_type is FinalSigmasType.ZERO else float(sigmas[-1])


def lowest_trained(settings: SchedulerSettings, train_sigmas: TrainSigmas, sigmas: Levels) -> float:
    """The last step ends at the lowest trained level, whatever a config says."""
    return float(train_sigmas[0])


def set_alpha_to_one(settings: SchedulerSettings, train_sigmas: TrainSigmas, sigmas: Levels) -> float:
    """The last step ends without noise, or at the lowest trained level, by the option of this name."""
    return 0.0 if settings.set_alpha_to_one else float(train_sigmas[0])


def the_next(timesteps: Levels, sigmas: Levels, train_sigmas: TrainSigmas) -> Levels:
    """Each step ends where the next begins."""
    return sigmas[1:]


def one_stride_lower(timesteps: Levels, sigmas: Levels, train_sigmas: TrainSigmas) -> Levels:
    """Each step ends num_train_timesteps // steps lower, be there a timestep of the schedule or not.

    For `linspace` there is none, quite; diffusers' pictures have that in them.
    """
    below = timesteps.astype(np.int64) - len(train_sigmas) // len(timesteps)
    return np.where(below >= 0, train_sigmas[np.maximum(below, 0)].astype(np.float64), sigmas[-1])
