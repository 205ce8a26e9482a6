"""DPM-Solver++, the multistep ones: DPM++ 2M and DPM++ 2M SDE. Reference: diffusers' DPMSolverMultistepScheduler.

Latents keep unit variance. With lambda = -log(sigma), the exponentials of the papers are ratios of noise levels:
exp(-h) = sigma_next / sigma. Sources: Lu et al. 2022 (2211.01095); the SDE form after Katherine Crowson's k-diffusion.
"""

from math import log, sqrt

from .base import Array, Estimator, Noise, Schedule, Walk, alpha_sigma

SHORT = 15
"""Below this many steps a second-order last step does harm (diffusers' `lower_order_final`)."""


def dpmpp_2m(x: Array, estimate: Estimator, schedule: Schedule, noise: Noise, eta: float) -> Walk:
    """Second-order multistep ODE solver, midpoint form."""
    return _multistep(x, estimate, schedule, None)


def dpmpp_2m_sde(x: Array, estimate: Estimator, schedule: Schedule, noise: Noise, eta: float) -> Walk:
    """Second-order multistep SDE solver, midpoint form; one draw of noise a step."""
    return _multistep(x, estimate, schedule, noise)


def _multistep(x: Array, estimate: Estimator, schedule: Schedule, noise: Noise | None) -> Walk:
    sigmas, last = schedule.sigmas, schedule.steps - 1
    previous: Array | None = None
    for step in schedule.evaluations:
        sigma, sigma_next = sigmas[step], sigmas[step + 1]
        denoised = drift = estimate(x, step).denoised
        if previous is not None and not (step == last and (sigma_next == 0 or schedule.steps < SHORT)):
            drift = denoised + (denoised - previous) * (0.5 * log(sigma / sigma_next) / log(sigmas[step - 1] / sigma))
        previous = denoised
        if noise is None:
            x = yield ode_step(x, drift, sigma, sigma_next)
        else:
            x = yield sde_step(x, drift, sigma, sigma_next, noise)


def ode_step(x: Array, drift: Array, sigma: float, sigma_next: float) -> Array:
    """Solve the probability-flow ODE from `sigma` to `sigma_next` exactly for constant denoised latents `drift`."""
    (_, noise_now), (alpha_next, noise_next) = alpha_sigma(sigma), alpha_sigma(sigma_next)
    step: Array = x * (noise_next / noise_now) + drift * (alpha_next * (1 - sigma_next / sigma))
    return step


def sde_step(x: Array, drift: Array, sigma: float, sigma_next: float, noise: Noise) -> Array:
    """The same for the reverse SDE; noise is drawn even where none of it is added, as diffusers draws it."""
    (_, noise_now), (alpha_next, noise_next) = alpha_sigma(sigma), alpha_sigma(sigma_next)
    ratio = sigma_next / sigma
    kept = 1 - ratio**2
    draw = noise.normal(x.shape[1:])
    step: Array = x * (noise_next / noise_now * ratio) + drift * (alpha_next * kept) + draw * (noise_next * sqrt(kept))
    return step
