"""TCD: jump along the ODE below the next level, and back up to it with fresh noise. Reference: TCDScheduler."""

from math import sqrt

import numpy as np

from .base import Array, Estimator, Noise, Schedule, Walk, alpha_sigma


def tcd(x: Array, estimate: Estimator, schedule: Schedule, noise: Noise, eta: float) -> Walk:
    """Strategic stochastic sampling of Zheng et al. 2024 (2402.19159); `eta` is its gamma.

    0 adds no noise, 1 jumps to the lowest trained level each time; 0.3 is usual.
    """
    for step in schedule.evaluations:
        level = schedule.sigmas_next[step]
        jumped_to = min(_below(schedule, step, eta), level) if eta > 0 else level
        (alpha_next, _), (alpha, sigma) = alpha_sigma(level), alpha_sigma(jumped_to)
        guess = estimate(x, step)
        x = guess.denoised * alpha + guess.noise * sigma
        if eta > 0 and step < schedule.steps - 1:
            kept = alpha_next / alpha
            x = x * kept + noise.normal(x.shape[1:]) * sqrt(max(1 - kept**2, 0.0))
        x = yield x


def _below(schedule: Schedule, step: int, eta: float) -> float:
    """The trained level at the share 1 - eta of the next timestep (of 0 after the last), rounded down in float32."""
    landing = schedule.timesteps[step + 1] if step + 1 < schedule.steps else 0.0
    return schedule.train_sigmas[int(np.floor(np.float32(1 - eta) * np.float32(landing)))]
