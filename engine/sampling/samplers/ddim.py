"""DDIM: back to the clean latents and out again along the same noise. Reference: diffusers' DDIMScheduler."""

from math import sqrt

from .base import Array, Estimator, Noise, Schedule, Walk, signal_and_noise


def ddim(x: Array, estimate: Estimator, schedule: Schedule, noise: Noise, eta: float) -> Walk:
    """Equation 12 of Song et al. 2020 (2010.02502). `eta` 0 is deterministic, 1 is DDPM."""
    for step in schedule.evaluations:
        (signal, level), (signal_to, level_to) = map(
            signal_and_noise, (schedule.evaluation_sigmas[step], schedule.landings[step])
        )
        guess = estimate(x, step)
        fresh = eta * level_to / level * sqrt(max(1 - (signal / signal_to) ** 2, 0.0))
        kept = sqrt(max(level_to**2 - fresh**2, 0.0))
        landed = guess.clean * signal_to + guess.noise * kept
        x = yield landed + noise.normal(x.shape[1:]) * fresh if eta > 0 else landed
