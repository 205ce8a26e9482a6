"""DDIM: back to the denoised latents and out again along the same noise. Reference: diffusers' DDIMScheduler."""

from math import sqrt

from .base import Array, Estimator, Noise, Schedule, Walk, alpha_sigma


def ddim(x: Array, estimate: Estimator, schedule: Schedule, noise: Noise, eta: float) -> Walk:
    """Equation 12 of Song et al. 2020 (2010.02502). `eta` 0 is deterministic, 1 is DDPM."""
    for step in schedule.evaluations:
        (alpha, sigma), (alpha_next, sigma_next) = map(
            alpha_sigma, (schedule.evaluation_sigmas[step], schedule.sigmas_next[step])
        )
        guess = estimate(x, step)
        fresh = eta * sigma_next / sigma * sqrt(max(1 - (alpha / alpha_next) ** 2, 0.0))
        kept = sqrt(max(sigma_next**2 - fresh**2, 0.0))
        landed = guess.denoised * alpha_next + guess.noise * kept
        x = yield landed + noise.normal(x.shape[1:]) * fresh if eta > 0 else landed
