"""Samplers that diffusers has not, or has wrong, against k-diffusion's and ComfyUI's formulas, in float64.

Those are written for latents = denoised + sigma · noise; ours may keep unit variance. Each formula gets the levels of
our schedule, the same noise, and of a cut schedule the latents that were handed over, with a history that begins anew.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from math import exp, expm1, log, sqrt

import diffusers
import numpy as np
import pytest
import torch
from scipy.integrate import quad

from pocketxl.engine.sampling.denoise import denoise
from pocketxl.engine.sampling.noise import BatchNoise
from pocketxl.engine.sampling.samplers.base import Estimate, Schedule
from pocketxl.engine.sampling.samplers.table import SAMPLERS, SCHEDULES
from pocketxl.engine.sampling.schedule import evaluation_timesteps, split

from ....fixtures.schedulers import SDXL, VELOCITY, ZERO_SNR, Gaussian, last_latents, our_schedule
from ....tolerances import SAMPLER_FROM_4096, SAMPLER_RELATIVE

CONFIGS = {"epsilon": SDXL, "velocity": VELOCITY, "zero_snr": ZERO_SNR}
SHAPE = (4, 4, 6)

Denoised = Callable[[np.ndarray, float], np.ndarray]
Draw = Callable[[], np.ndarray]
Formula = Callable[[np.ndarray, Denoised, Sequence[float], Draw], np.ndarray]


def dpmpp_2s_a(x: np.ndarray, denoised: Denoised, sigmas: Sequence[float], draw: Draw) -> np.ndarray:
    for now, then in pairwise(sigmas):
        if then == 0:
            return denoised(x, now)
        up = min(then, sqrt(then**2 * (now**2 - then**2) / now**2))
        down = sqrt(then**2 - up**2)
        t, t_next = -log(now), -log(down)
        h = t_next - t
        middle = exp(-(t + h / 2))
        half = middle / now * x - expm1(-h / 2) * denoised(x, now)
        x = down / now * x - expm1(-h) * denoised(half, middle) + draw() * up
    return x


def dpmpp_3m_sde(x: np.ndarray, denoised: Denoised, sigmas: Sequence[float], draw: Draw) -> np.ndarray:
    seen: list[np.ndarray] = []
    strides: list[float] = []
    for now, then in pairwise(sigmas):
        seen.append(denoised(x, now))
        if then == 0:
            return seen[-1]
        h = log(now) - log(then)
        both = 2 * h
        x = exp(-both) * x - expm1(-both) * seen[-1]
        phi_2 = expm1(-both) / both + 1
        if len(seen) == 2:
            x = x + phi_2 * (seen[-1] - seen[-2]) / (strides[-1] / h)
        elif len(seen) > 2:
            r_0, r_1 = strides[-1] / h, strides[-2] / h
            late, early = (seen[-1] - seen[-2]) / r_0, (seen[-2] - seen[-3]) / r_1
            first = late + (late - early) * r_0 / (r_0 + r_1)
            second = (late - early) / (r_0 + r_1)
            x = x + phi_2 * first - (phi_2 / both - 0.5) * second
        x = x + draw() * then * sqrt(-expm1(-2 * h))
        strides.append(h)
    return x


def res_multistep(x: np.ndarray, denoised: Denoised, sigmas: Sequence[float], draw: Draw) -> np.ndarray:
    before: np.ndarray | None = None
    for i, (now, then) in enumerate(pairwise(sigmas)):
        clean = denoised(x, now)
        if then == 0 or before is None:
            x = x + (x - clean) / now * (then - now)
        else:
            h = log(now) - log(then)
            c_2 = (log(now) - log(sigmas[i - 1])) / h
            phi_1 = expm1(-h) / -h
            phi_2 = (phi_1 - 1) / -h
            x = exp(-h) * x + h * ((phi_1 - phi_2 / c_2) * clean + phi_2 / c_2 * before)
        before = clean
    return x


def er_sde(x: np.ndarray, denoised: Denoised, sigmas: Sequence[float], draw: Draw) -> np.ndarray:
    def scaler(sigma: float) -> float:
        return float(sigma * (exp(sigma**0.3) + 10.0))

    seen: list[np.ndarray] = []
    slopes: list[np.ndarray] = []
    for i, (now, then) in enumerate(pairwise(sigmas)):
        seen.append(denoised(x, now))
        if then == 0:
            return seen[-1]
        r = scaler(then) / scaler(now)
        x = r * x + (1 - r) * seen[-1]
        width = (now - then) / 200
        places = [then + k * width for k in range(200)]
        if len(seen) > 1:
            s = sum(1 / scaler(p) for p in places) * width
            slopes.append((seen[-1] - seen[-2]) / (now - sigmas[i - 1]))
            x = x + ((then - now) + s * scaler(then)) * slopes[-1]
        if len(seen) > 2:
            s = sum((p - now) / scaler(p) for p in places) * width
            bend = (slopes[-1] - slopes[-2]) / ((now - sigmas[i - 2]) / 2)
            x = x + ((then - now) ** 2 / 2 + s * scaler(then)) * bend
        x = x + draw() * sqrt(then**2 - now**2 * r**2)
    return x


FORMULAS: dict[str, Formula] = {
    "dpmpp_2s_a": dpmpp_2s_a,
    "dpmpp_3m_sde": dpmpp_3m_sde,
    "res_multistep": res_multistep,
    "er_sde": er_sde,
}


def by_formula(sampler: str, part: Schedule, model: Gaussian, latents: np.ndarray, noise: BatchNoise) -> np.ndarray:
    """A part of a schedule by the formula, from and to latents as ours are."""
    per_step = part.sampler.calls.per_step
    sigmas = part.sigmas[part.begin // per_step : -(-part.end // per_step) + 1]
    timestep_of = dict(zip(part.evaluation_sigmas, part.timesteps, strict=True))
    levels = np.asarray(list(timestep_of))

    def denoised(x: np.ndarray, sigma: float) -> np.ndarray:
        nearest = float(levels[np.abs(levels - sigma).argmin()])
        assert abs(nearest - sigma) <= 1e-6 * sigma, "the model is called at a level of the schedule"
        alpha = 1 / sqrt(1 + sigma**2)
        prediction = model((x * alpha).astype(np.float32), timestep_of[nearest]).astype(np.float64)
        if part.prediction_type == "epsilon":
            return x - sigma * prediction
        return alpha**2 * x - sigma * alpha * prediction

    grow = (lambda sigma: 1.0) if part.sampler.scaled_input else (lambda sigma: sqrt(1 + sigma**2))
    found = FORMULAS[sampler](
        latents.astype(np.float64) * grow(sigmas[0]), denoised, sigmas, lambda: noise.normal(SHAPE).astype(np.float64)
    )
    return found / grow(sigmas[-1])


def ours(part: Schedule, model: Gaussian, latents: np.ndarray, noise: BatchNoise) -> np.ndarray:
    timesteps = evaluation_timesteps(part)
    return last_latents(denoise(lambda x, i: model(x, float(timesteps[i])), latents, part, noise))


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 20])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("sampler", FORMULAS)
def test_equals_the_formula(sampler: str, config: str, schedule: str, steps: int) -> None:
    whole = our_schedule(CONFIGS[config], sampler, schedule, num_inference_steps=steps)
    model, expert = (Gaussian(CONFIGS[config]["prediction_type"], mean=mean) for mean in (0.4, -0.2))
    tolerance = SAMPLER_FROM_4096 if config == "zero_snr" and whole.sampler.scaled_input else SAMPLER_RELATIVE

    def start() -> tuple[BatchNoise, np.ndarray]:
        noise = BatchNoise((3, 1))
        return noise, noise.normal(SHAPE) * np.float32(whole.init_noise_sigma)

    noise, latents = start()
    found = ours(whole, model, latents, noise)
    noise, latents = start()
    expected = by_formula(sampler, whole, model, latents, noise)
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()

    # A cut between two steps: the second model goes on without the first one's history.
    first, second = split(whole, 0.6)
    if first.end % whole.sampler.calls.per_step:
        return  # inside a step: its half-done state is nothing that the formula has
    noise, latents = start()
    found = ours(second, expert, ours(first, model, latents, noise), noise)
    noise, latents = start()
    handed = by_formula(sampler, first, model, latents, noise) if first.evaluations else latents
    expected = by_formula(sampler, second, expert, handed, noise) if second.evaluations else handed
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("sampler", ["dpmpp_2s_a"])
def test_a_cut_inside_a_step_begins_the_step_again(sampler: str) -> None:
    """The prediction of the level that the step goes to is what is handed over; the expert takes the whole step."""
    whole = our_schedule(SDXL, sampler, num_inference_steps=4)
    first, second = split(whole, 0.5)
    assert first.end % 2 == 1
    assert second.begin == first.end - 1
    assert SAMPLERS[sampler].calls is SAMPLERS["heun"].calls


def test_the_third_order_of_diffusers_sde_solver_is_not_taken_over() -> None:
    """Its coefficient of the bend goes to -1 as steps get shorter; that of the exact integral is a third.

    k-diffusion's is half of that (as in DPM-Solver++'s own third order), which is small beside the slope's.
    """
    scheduler = diffusers.DPMSolverMultistepScheduler.from_config(
        SDXL, algorithm_type="sde-dpmsolver++", solver_order=3, use_exponential_sigmas=True
    )
    scheduler.set_timesteps(400)
    scheduler._step_index = 200
    now, then = (float(scheduler.sigmas[i]) for i in (200, 201))
    rate, alpha = 2 * log(now / then), 1 / sqrt(1 + then**2)
    # In units of the step: the parabola through (-2, 0), (-1, 0), (0, 1) is (s + 1) (s + 2) / 2.
    exact = alpha * quad(lambda s: (s + 1) * (s + 2) / 2 * rate * exp(-rate * (1 - s)), 0, 1)[0]

    outputs = [torch.tensor([value], dtype=torch.float64) for value in (0.0, 0.0, 1.0)]
    zero = torch.zeros(1, dtype=torch.float64)
    theirs = float(scheduler.multistep_dpm_solver_third_order_update(outputs, sample=zero, noise=zero)[0])
    assert abs(theirs / exact - 1) > 1

    plan = our_schedule(SDXL, "dpmpp_3m_sde", "exponential", num_inference_steps=400)
    walk = SAMPLERS["dpmpp_3m_sde"].walk
    part = replace(plan, begin=198, end=201)
    seen = iter([0.0, 0.0, 1.0])

    def estimate(x: np.ndarray, evaluation: int) -> Estimate:
        clean = np.full_like(x, next(seen))
        return Estimate(clean, clean)

    steps = walk(np.zeros((1, 1, 1, 1), np.float32), estimate, part, Silence(), 0.0)
    latents = next(steps)
    for _ in range(2):
        latents = steps.send(np.zeros_like(latents))
    assert latents.item() == pytest.approx(exact, rel=0.05)
    assert now == pytest.approx(plan.sigmas[200], rel=1e-6)


class Silence:
    """Noise that is none."""

    def normal(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.zeros((1, *shape), np.float32)
