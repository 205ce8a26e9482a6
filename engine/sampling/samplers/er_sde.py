"""ER-SDE: an extended reverse SDE that adds less noise than ancestral samplers. Reference: ComfyUI's `sample_er_sde`.

Source: Cui et al. 2023, "Elucidating the solution space of extended reverse-time SDE for diffusion models"
(2309.06169), ER-SDE-Solver-3. Its integrals have no closed form for the noise that the authors recommend; like theirs,
they are sums over 200 points.
"""

from math import exp, sqrt

import numpy as np

from .base import Array, Estimator, Noise, Schedule, Walk, alpha_sigma

POINTS = 200


def er_sde(x: Array, estimate: Estimator, schedule: Schedule, noise: Noise, eta: float) -> Walk:
    """Order 3 once two evaluations are behind; warms up from order 1 in every part. The last step is the denoised."""
    sigmas = schedule.sigmas
    before: Array | None = None
    slope_before: Array | None = None
    for step in schedule.evaluations:
        sigma, sigma_next = sigmas[step], sigmas[step + 1]
        denoised = estimate(x, step).denoised
        if sigma_next == 0:
            x = yield denoised
            continue
        (alpha, _), (alpha_next, _) = alpha_sigma(sigma), alpha_sigma(sigma_next)
        ratio = _scale(sigma_next) / _scale(sigma)
        landed = x * (alpha_next / alpha * ratio) + denoised * (alpha_next * (1 - ratio))
        if before is not None:
            first, second = _moments(sigma, sigma_next)
            slope = (denoised - before) / (sigma - sigmas[step - 1])
            landed = landed + slope * (alpha_next * first)
            if slope_before is not None:
                bend = (slope - slope_before) / ((sigma - sigmas[step - 2]) / 2)
                landed = landed + bend * (alpha_next * second)
            slope_before = slope
        before = denoised
        fresh = sqrt(max(sigma_next**2 - (sigma * ratio) ** 2, 0.0))
        x = yield landed + noise.normal(x.shape[1:]) * (alpha_next * fresh)


def _scale(sigma: float) -> float:
    """How fast noise is renewed: the authors' recommendation (section 4.3, SDE 5)."""
    return sigma * (exp(sigma**0.3) + 10)


def _moments(sigma: float, sigma_next: float) -> tuple[float, float]:
    """What a slope and a bend of the denoised latents over the step come to, apart from alpha."""
    step = sigma_next - sigma
    width = -step / POINTS
    at = sigma_next + np.arange(POINTS) * width
    weight = width * _scale(sigma_next) / (at * (np.exp(at**0.3) + 10))
    return step + float(weight.sum()), step**2 / 2 + float((weight * (at - sigma)).sum())
