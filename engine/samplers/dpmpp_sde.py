"""DPM++ SDE: the second-order single-step SDE solver. Reference: diffusers' DPMSolverSinglestepScheduler.

Of diffusers' two this is the one for us. DPMSolverSDEScheduler takes its noise from a torchsde Brownian tree, which
ignores the pipeline's generator, so that no seed gives its picture again; the single-step scheduler
(`algorithm_type="sde-dpmsolver++"`) draws from the generator. It evaluates the model once a step: a second-order step
covers two noise levels, and the step before it is its midpoint.
"""

from math import log

from .base import Array, Estimator, Noise, Schedule, Walk
from .dpmpp import sde_step


def dpmpp_sde(x: Array, estimate: Estimator, schedule: Schedule, noise: Noise, eta: float) -> Walk:
    """Algorithm 1 of Lu et al. 2022 (2211.01095) in its SDE form, midpoint; noise from the pictures' own streams."""
    sigmas, orders = schedule.sigmas, step_orders(schedule.steps, ends_clean=schedule.sigmas[-1] == 0)
    start, first = x, None
    for step in schedule.evaluations:
        landing = sigmas[step + 1]
        clean = estimate(x, step).clean
        if orders[step] == 1 or first is None:
            start, first = x, clean
            x = yield sde_step(x, clean, sigmas[step], landing, noise)
        else:
            begin = sigmas[step - 1]
            drift = first + (clean - first) * (0.5 * log(begin / landing) / log(begin / sigmas[step]))
            x = yield sde_step(start, drift, begin, landing, noise)


def step_orders(steps: int, *, ends_clean: bool) -> list[int]:
    """1 for a half-way step, 2 for the step that finishes it; the last is 1 where second order has no meaning."""
    orders = [1 + step % 2 for step in range(steps)]
    if ends_clean:
        orders[-1] = 1
    return orders
