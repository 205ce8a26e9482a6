"""Euler: one straight step along the probability-flow ODE. Reference: diffusers' EulerDiscreteScheduler."""

from .base import Array, Estimator, Noise, Schedule, Walk


def euler(x: Array, estimate: Estimator, schedule: Schedule, noise: Noise, eta: float) -> Walk:
    """Algorithm 1 of Karras et al. 2022 (2206.00364) without churn; dx/dsigma is the noise estimate."""
    for step in schedule.evaluations:
        direction = estimate(x, step).noise
        x = yield x + direction * (schedule.sigmas[step + 1] - schedule.sigmas[step])
