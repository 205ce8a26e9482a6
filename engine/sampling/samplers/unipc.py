"""UniPC: DPM++ 2M's prediction, corrected by the next evaluation at no cost. Reference: UniPCMultistepScheduler.

Source: Zhao et al. 2023 (2302.04867), B2(h) form, order 2, on denoised latents (diffusers' defaults).
"""

from math import expm1, log

from .base import Array, Estimator, Noise, Schedule, Walk
from .dpmpp import ode_step


def unipc(x: Array, estimate: Estimator, schedule: Schedule, noise: Noise, eta: float) -> Walk:
    """Correct the latents with what the model says about them, then predict; warms up from order 1 in every part."""
    sigmas = schedule.sigmas
    history: list[Array] = []
    start, order = x, 0
    for step in schedule.evaluations:
        sigma, sigma_next = sigmas[step], sigmas[step + 1]
        denoised = estimate(x, step).denoised
        if history:
            x = ode_step(start, _corrected(denoised, history, sigmas, step, order), sigmas[step - 1], sigma)
        history = [*history[-1:], denoised]
        order = min(2, schedule.steps - step, order + 1)
        drift = denoised
        if order == 2:
            drift = denoised + (denoised - history[0]) * (0.5 * log(sigma / sigma_next) / log(sigmas[step - 1] / sigma))
        start = x
        x = yield ode_step(x, drift, sigma, sigma_next)


def _corrected(denoised: Array, history: list[Array], sigmas: tuple[float, ...], step: int, order: int) -> Array:
    """The constant denoised latents which stand for the step just taken, now that its end has been evaluated."""
    gain = denoised - history[-1]
    if order == 1:
        return history[-1] + gain * 0.5
    h = log(sigmas[step - 1] / sigmas[step])
    r = -log(sigmas[step - 2] / sigmas[step - 1]) / h
    # The two moments that the correction must match, from phi_2 and phi_3 (equation 5 of the paper).
    phi_1 = expm1(-h)
    phi_2 = phi_1 / -h - 1
    phi_3 = phi_2 / -h - 0.5
    first, second = phi_2 / phi_1, 2 * phi_3 / phi_1
    rho = (first - second) / (1 - r)
    corrected: Array = history[-1] + (history[-2] - history[-1]) * (rho / r) + gain * (first - rho)
    return corrected
