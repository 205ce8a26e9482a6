"""DPM-Solver++, the multistep ones: DPM++ 2M and DPM++ 2M SDE. Reference: diffusers' DPMSolverMultistepScheduler.

Latents keep unit variance. With lambda = -log(sigma), the exponentials of the papers are ratios of noise levels:
exp(-h) = sigma_next / sigma. Sources: Lu et al. 2022 (2211.01095); the SDE form after Katherine Crowson's k-diffusion.
"""

from math import log, sqrt

from .base import Array, Estimator, Noise, Schedule, Walk, signal_and_noise

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
        sigma, landing = sigmas[step], sigmas[step + 1]
        clean = drift = estimate(x, step).clean
        if previous is not None and not (step == last and (landing == 0 or schedule.steps < SHORT)):
            drift = clean + (clean - previous) * (0.5 * log(sigma / landing) / log(sigmas[step - 1] / sigma))
        previous = clean
        if noise is None:
            x = yield ode_step(x, drift, sigma, landing)
        else:
            x = yield sde_step(x, drift, sigma, landing, noise)


def ode_step(x: Array, drift: Array, sigma: float, landing: float) -> Array:
    """Solve the probability-flow ODE from `sigma` to `landing` exactly for constant clean latents `drift`."""
    (_, noise_from), (signal_to, noise_to) = signal_and_noise(sigma), signal_and_noise(landing)
    step: Array = x * (noise_to / noise_from) + drift * (signal_to * (1 - landing / sigma))
    return step


def sde_step(x: Array, drift: Array, sigma: float, landing: float, noise: Noise) -> Array:
    """The same for the reverse SDE; noise is drawn even where none of it is added, as diffusers draws it."""
    (_, noise_from), (signal_to, noise_to) = signal_and_noise(sigma), signal_and_noise(landing)
    ratio = landing / sigma
    kept = 1 - ratio**2
    draw = noise.normal(x.shape[1:])
    step: Array = x * (noise_to / noise_from * ratio) + drift * (signal_to * kept) + draw * (noise_to * sqrt(kept))
    return step
