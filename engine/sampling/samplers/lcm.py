"""LCM: guess the denoised latents, add fresh noise, guess again. Reference: diffusers' LCMScheduler."""

from math import hypot

from .base import Array, Estimator, Noise, Schedule, Walk, alpha_sigma

SIGMA_DATA = 0.5


def lcm(x: Array, estimate: Estimator, schedule: Schedule, noise: Noise, eta: float) -> Walk:
    """Multistep sampling of Luo et al. 2023 (2310.04378), for models distilled to a few steps."""
    for step in schedule.evaluations:
        scaled = schedule.timesteps[step] * schedule.timestep_scaling
        skip = SIGMA_DATA**2 / (scaled**2 + SIGMA_DATA**2)
        denoised = estimate(x, step).denoised * (scaled / hypot(scaled, SIGMA_DATA)) + x * skip
        if step == schedule.steps - 1:
            x = yield denoised
        else:
            alpha_next, sigma_next = alpha_sigma(schedule.sigmas_next[step])
            x = yield denoised * alpha_next + noise.normal(x.shape[1:]) * sigma_next
