"""Euler ancestral: a step too far, then fresh noise back up. Reference: diffusers' EulerAncestralDiscreteScheduler."""

from math import sqrt

from .base import Array, Estimator, Noise, Schedule, Walk


def euler_ancestral(x: Array, estimate: Estimator, schedule: Schedule, noise: Noise, eta: float) -> Walk:
    """`sample_euler_ancestral` of k-diffusion, eta 1."""
    for step in schedule.evaluations:
        sigma, sigma_next = schedule.sigmas[step], schedule.sigmas[step + 1]
        up = sigma_next * sqrt(max(sigma**2 - sigma_next**2, 0.0)) / sigma
        down = sqrt(max(sigma_next**2 - up**2, 0.0))
        direction = estimate(x, step).noise
        x = yield x + direction * (down - sigma) + noise.normal(x.shape[1:]) * up
