"""RES, multistep: an exponential integrator whose second-order condition holds exactly. Reference: ComfyUI's formulas.

Source: Zhang et al. 2023, "Improved Order Analysis and Design of Exponential Integrator" (2308.02157). It differs from
DPM++ 2M by phi_2 in place of phi_1 / 2, and ends with one step of first order whatever their number.
"""

from math import expm1, log

from .base import Array, Estimator, Noise, Schedule, Walk
from .dpmpp import ode_step


def res_multistep(x: Array, estimate: Estimator, schedule: Schedule, noise: Noise, eta: float) -> Walk:
    """Second-order multistep ODE solver; starts anew with first order in every part."""
    sigmas = schedule.sigmas
    previous: Array | None = None
    for step in schedule.evaluations:
        sigma, sigma_next = sigmas[step], sigmas[step + 1]
        denoised = drift = estimate(x, step).denoised
        if previous is not None and sigma_next > 0:
            h, before = log(sigma / sigma_next), log(sigmas[step - 1] / sigma)
            phi_1 = expm1(-h) / -h
            phi_2 = (1 - phi_1) / h
            drift = denoised + (denoised - previous) * (phi_2 / phi_1 * h / before)
        previous = denoised
        x = yield ode_step(x, drift, sigma, sigma_next)
