"""DPM++ 2S ancestral: a second-order step too far, then fresh noise back up. Reference: k-diffusion's formulas."""

from math import sqrt

from .base import Array, Estimator, Noise, Schedule, Walk


def dpmpp_2s_a(x: Array, estimate: Estimator, schedule: Schedule, noise: Noise, eta: float) -> Walk:
    """`sample_dpmpp_2s_ancestral` of k-diffusion, eta 1: algorithm 1 of Lu et al. 2022 (2211.01095), r 1/2.

    The step goes down to sigma_next² / sigma, so that its middle (in log sigma) is sigma_next itself: the model is
    called where heun calls it. Even evaluations look there, odd ones finish; a cut between the two is as in `heun`.
    """
    start = x
    for evaluation in schedule.evaluations:
        step = evaluation // 2
        sigma, sigma_next = schedule.sigmas[step], schedule.sigmas[step + 1]
        ratio = sigma_next / sigma
        denoised = estimate(x, evaluation).denoised
        if evaluation % 2 == 0 and step < schedule.steps - 1:
            start = x
            x = yield _toward(x, denoised, ratio)
        else:  # the second evaluation, or the only one of the last step
            landed = _toward(start if evaluation % 2 else x, denoised, ratio**2)
            up = sigma_next * sqrt(max(1 - ratio**2, 0.0))
            x = yield landed + noise.normal(x.shape[1:]) * up if up > 0 else landed


def _toward(x: Array, denoised: Array, ratio: float) -> Array:
    """Down to `ratio` of the noise level along the probability-flow ODE, exactly for constant denoised latents."""
    stepped: Array = x * ratio + denoised * (1 - ratio)
    return stepped
