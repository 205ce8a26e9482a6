"""DDPM: the posterior of the forward process, drawn. Reference: diffusers' DDPMScheduler."""

from math import sqrt

from .base import Array, Estimator, Noise, Schedule, Walk, alpha_sigma


def ddpm(x: Array, estimate: Estimator, schedule: Schedule, noise: Noise, eta: float) -> Walk:
    """Equation 7 of Ho et al. 2020 (2006.11239), from one level of the schedule to the next."""
    for step in schedule.evaluations:
        (alpha, sigma), (alpha_next, sigma_next) = map(
            alpha_sigma, (schedule.evaluation_sigmas[step], schedule.sigmas_next[step])
        )
        kept = alpha / alpha_next
        forgotten = 1 - kept**2
        denoised = estimate(x, step).denoised
        landed = denoised * (alpha_next * forgotten / sigma**2) + x * (kept * sigma_next**2 / sigma**2)
        if schedule.timesteps[step] > 0:  # noise is drawn even where none of it is added, as diffusers draws it
            landed = landed + noise.normal(x.shape[1:]) * (sigma_next / sigma * sqrt(max(forgotten, 0.0)))
        x = yield landed
