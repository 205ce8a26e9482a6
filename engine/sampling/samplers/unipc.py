"""UniPC: DPM++ 2M's prediction, corrected by the next evaluation at no cost. Reference: UniPCMultistepScheduler.

Source: Zhao et al. 2023 (2302.04867), B2(h) form, order 2, on clean latents (diffusers' defaults).
"""

from math import expm1, log

from .base import Array, Estimator, Noise, Schedule, Walk
from .dpmpp import ode_step


def unipc(x: Array, estimate: Estimator, schedule: Schedule, noise: Noise, eta: float) -> Walk:
    """Correct the latents with what the model says about them, then predict; warms up from order 1 in every part."""
    sigmas = schedule.sigmas
    cleans: list[Array] = []
    start, order = x, 0
    for step in schedule.evaluations:
        sigma, landing = sigmas[step], sigmas[step + 1]
        clean = estimate(x, step).clean
        if cleans:
            x = ode_step(start, _corrected(clean, cleans, sigmas, step, order), sigmas[step - 1], sigma)
        cleans = [*cleans[-1:], clean]
        order = min(2, schedule.steps - step, order + 1)
        drift = clean
        if order == 2:
            drift = clean + (clean - cleans[0]) * (0.5 * log(sigma / landing) / log(sigmas[step - 1] / sigma))
        start = x
        x = yield ode_step(x, drift, sigma, landing)


def _corrected(clean: Array, cleans: list[Array], sigmas: tuple[float, ...], step: int, order: int) -> Array:
    """The constant clean latents which stand for the step just taken, now that its end has been evaluated."""
    gain = clean - cleans[-1]
    if order == 1:
        return cleans[-1] + gain * 0.5
    h = log(sigmas[step - 1] / sigmas[step])
    r = -log(sigmas[step - 2] / sigmas[step - 1]) / h
    # The two moments that the correction must match, from phi_2 and phi_3 (equation 5 of the paper).
    phi_1 = expm1(-h)
    phi_2 = phi_1 / -h - 1
    phi_3 = phi_2 / -h - 0.5
    first, second = phi_2 / phi_1, 2 * phi_3 / phi_1
    rho = (first - second) / (1 - r)
    corrected: Array = cleans[-1] + (cleans[-2] - cleans[-1]) * (rho / r) + gain * (first - rho)
    return corrected
