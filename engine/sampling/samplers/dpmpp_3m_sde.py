"""DPM++ 3M SDE: the reverse SDE, with what the last three evaluations say of its curve. Reference: k-diffusion.

diffusers has one (DPMSolverMultistepScheduler, "sde-dpmsolver++", solver_order=3), but the last term of its third-order
update has 1/2 with the wrong sign, so that steps do not get better as they get shorter; tests show it.
"""

from math import exp, log

from .base import Array, Estimator, Noise, Schedule, Walk
from .dpmpp import sde_step


def dpmpp_3m_sde(x: Array, estimate: Estimator, schedule: Schedule, noise: Noise, eta: float) -> Walk:
    """`sample_dpmpp_3m_sde` of k-diffusion, eta 1; warms up from order 1 in every part. One draw of noise a step."""
    sigmas = schedule.sigmas
    history: list[Array] = []
    for step in schedule.evaluations:
        denoised = estimate(x, step).denoised
        drift = denoised
        if sigmas[step + 1] > 0 and history:
            drift = _drift(denoised, history, sigmas[max(0, step - 2) : step + 2])
        history = [*history[-1:], denoised]
        x = yield sde_step(x, drift, sigmas[step], sigmas[step + 1], noise)


def _drift(denoised: Array, history: list[Array], sigmas: tuple[float, ...]) -> Array:
    """The constant denoised latents that stand for the step: a parabola (or a line) through those evaluated.

    `sigmas`: the last levels, the one that is gone to behind them. phi_2 and phi_3 are of 2h: noise is added at the
    rate at which it goes.
    """
    h, h_1 = log(sigmas[-2] / sigmas[-1]), log(sigmas[-3] / sigmas[-2])
    share = 1 - exp(-2 * h)
    phi_2 = 1 - share / (2 * h)
    slope = (denoised - history[-1]) * (h / h_1)
    if len(history) == 1:
        return denoised + slope * (phi_2 / share)
    h_2 = log(sigmas[-4] / sigmas[-3])
    before = (history[-1] - history[-2]) * (h / h_2)
    bend = (slope - before) * (h / (h_1 + h_2))
    phi_3 = phi_2 / (2 * h) - 0.5
    drift: Array = denoised + (slope + bend * (h_1 / h)) * (phi_2 / share) - bend * (phi_3 / share)
    return drift
