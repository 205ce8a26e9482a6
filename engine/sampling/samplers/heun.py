"""Heun: an Euler step, corrected by the slope at its end. Reference: diffusers' HeunDiscreteScheduler."""

from .base import Array, Estimator, Noise, Schedule, Walk


def heun(x: Array, estimate: Estimator, schedule: Schedule, noise: Noise, eta: float) -> Walk:
    """Algorithm 1 of Karras et al. 2022 (2206.00364) without churn; the last step, to zero noise, is Euler's.

    Even evaluations predict, odd ones correct. A part that ends between the two hands on the uncorrected prediction,
    and the next part predicts that step again: diffusers cuts so.
    """
    start = slope = x
    for evaluation in schedule.evaluations:
        step = evaluation // 2
        sigma, sigma_next = schedule.sigmas[step], schedule.sigmas[step + 1]
        if evaluation % 2 == 0:
            start, slope = x, _slope(x, estimate, evaluation, sigma)
            x = yield x + slope * (sigma_next - sigma)
        else:
            corrected = (slope + _slope(x, estimate, evaluation, sigma_next)) * 0.5
            x = yield start + corrected * (sigma_next - sigma)


def _slope(x: Array, estimate: Estimator, evaluation: int, sigma: float) -> Array:
    # Not `estimate.noise`: the denoised latents may have been clipped.
    return (x - estimate(x, evaluation).denoised) / sigma
