"""Noise levels of timesteps and timesteps of noise levels, between and at those that were trained."""

import numpy as np

from .spacing import Levels
from .trained import TrainSigmas


def interpolated_sigmas(timesteps: Levels, train_sigmas: TrainSigmas) -> Levels:
    """Noise levels of timesteps, between two trained ones by interpolation."""
    return np.interp(timesteps, np.arange(len(train_sigmas)), train_sigmas)


def trained_sigmas(timesteps: Levels, train_sigmas: TrainSigmas) -> Levels:
    """Noise levels of whole timesteps."""
    return train_sigmas[timesteps.astype(np.int64)].astype(np.float64)


def fractional_timesteps(sigmas: Levels | TrainSigmas, train_sigmas: TrainSigmas, schedule: str) -> Levels:
    """Timesteps of noise levels, by interpolation of the logarithms."""
    trained = np.log(train_sigmas)
    logs = np.log(np.maximum(sigmas, sigmas.dtype.type(1e-10)))
    below = np.clip(np.searchsorted(trained.astype(logs.dtype), logs, side="right") - 1, 0, len(trained) - 2)
    weight = np.clip((trained[below] - logs) / (trained[below] - trained[below + 1]), 0, 1)
    return np.asarray((1 - weight) * below + weight * (below + 1), dtype=np.float64)


def rounded_timesteps(sigmas: Levels | TrainSigmas, train_sigmas: TrainSigmas, schedule: str) -> Levels:
    """The nearest whole timesteps."""
    return fractional_timesteps(sigmas, train_sigmas, schedule).round()


def rounded_or_cut_timesteps(sigmas: Levels | TrainSigmas, train_sigmas: TrainSigmas, schedule: str) -> Levels:
    """Whole timesteps as diffusers' multistep solvers have them: of exponential and beta cut off, of others rounded."""
    timesteps = fractional_timesteps(sigmas, train_sigmas, schedule)
    return np.trunc(timesteps) if schedule in ("exponential", "beta") else timesteps.round()
