"""Every sampler on every schedule, those that diffusers lacks too, against what the mathematics says.

For pictures whose pixels are N(mean, deviation²) the exact denoiser is known, and so is where the probability-flow ODE
ends; a stochastic sampler ends somewhere in the same distribution.
"""

import numpy as np
import pytest

from pocketxl.engine.sampling.denoise import denoise
from pocketxl.engine.sampling.noise import BatchNoise
from pocketxl.engine.sampling.samplers.base import Schedule, alpha_sigma
from pocketxl.engine.sampling.samplers.table import SAMPLERS, SCHEDULES

from ....fixtures.schedulers import SDXL, VELOCITY, last_latents, our_schedule
from ....tolerances import SAMPLER_RELATIVE, SOLUTION_RELATIVE, SPREAD_RELATIVE

MEAN, DEVIATION = 0.4, 0.7
STEPS = 200
DETERMINISTIC = ("euler", "heun", "dpmpp_2m", "ddim", "unipc", "res_multistep")
STOCHASTIC = ("euler_a", "dpmpp_2m_sde", "dpmpp_sde", "dpmpp_2s_a", "dpmpp_3m_sde", "er_sde", "ddpm")


def sample(schedule: Schedule, shape: tuple[int, ...], seeds: range) -> tuple[np.ndarray, np.ndarray]:
    def model(x: np.ndarray, evaluation: int) -> np.ndarray:
        alpha, sigma = alpha_sigma(schedule.evaluation_sigmas[evaluation])
        pull = DEVIATION**2 * alpha / (alpha**2 * DEVIATION**2 + sigma**2)
        clean = MEAN + pull * (x - alpha * MEAN)
        noise = (x - alpha * clean) / sigma
        return noise if schedule.prediction_type == "epsilon" else alpha * noise - sigma * clean

    noise = BatchNoise(list(seeds))
    start = noise.normal(shape) * np.float32(schedule.init_noise_sigma)
    return start, last_latents(denoise(model, start, schedule, noise))


@pytest.mark.parametrize("config", [SDXL, VELOCITY], ids=["epsilon", "velocity"])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("sampler", DETERMINISTIC)
def test_the_ode_is_solved(sampler: str, schedule: str, config: dict[str, object]) -> None:
    plan = our_schedule(config, sampler, schedule, num_inference_steps=STEPS)
    start, found = sample(plan, (4, 4, 4), range(2))
    high, low = plan.sigmas[0], plan.sigmas[-1]
    if not SAMPLERS[sampler].scaled_input:
        start = start * np.float32((1 + high**2) ** 0.5)
    shrink = ((DEVIATION**2 + low**2) / (DEVIATION**2 + high**2)) ** 0.5
    exact = MEAN + (start - MEAN) * shrink
    assert np.abs(found - exact).max() <= SOLUTION_RELATIVE * np.abs(exact).max()


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("sampler", STOCHASTIC)
def test_the_distribution_is_reached(sampler: str, schedule: str) -> None:
    # beta leaves wide steps in the middle for its dense ends.
    steps = 2 * STEPS if schedule == "beta" else STEPS
    plan = our_schedule(SDXL, sampler, schedule, num_inference_steps=steps)
    _, found = sample(plan, (4, 32, 32), range(6))
    if (sampler, schedule) != ("er_sde", "default"):
        # `leading` begins at timestep 801 as if it was pure noise; er_sde renews too little of it to forget that.
        assert abs(found.mean() - MEAN) < 0.03
    assert abs(found.std() / DEVIATION - 1) <= SPREAD_RELATIVE


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_lcm_keeps_a_consistent_model(schedule: str) -> None:
    """A consistency model that knows the picture returns it, whatever noise was added in between."""
    plan = our_schedule(SDXL, "lcm", schedule, num_inference_steps=4)
    picture = np.random.default_rng(0).standard_normal((2, 4, 4, 4)).astype(np.float32)

    def model(x: np.ndarray, evaluation: int) -> np.ndarray:
        alpha, sigma = alpha_sigma(plan.evaluation_sigmas[evaluation])
        return np.asarray((x - alpha * picture) / sigma, dtype=np.float32)

    noise = BatchNoise([1, 2])
    found = last_latents(denoise(model, noise.normal((4, 4, 4)), plan, noise))
    # The boundary condition mixes in a trace of the input at the lowest timestep.
    np.testing.assert_allclose(found, picture, atol=5e-3)


class Silence:
    """Noise that is none: what is left of a stochastic sampler is the mean of where it ends."""

    def normal(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.zeros((2, *shape), np.float32)


def remaining_error(sampler: str, steps: int, *, keeps: float) -> float:
    """How far from the exact end a walk from 14 to 0.05 is, as a share of the way; see the two tests below."""
    sigmas = np.geomspace(14, 0.05, steps + 1).tolist()
    plan = our_schedule(VELOCITY, sampler, sigmas=sigmas)
    high, low = plan.sigmas[0], plan.sigmas[-1]
    start = np.random.default_rng(0).standard_normal((2, 4, 4, 4)).astype(np.float32)
    grow = (lambda sigma: 1.0) if plan.sampler.scaled_input else (lambda sigma: float(np.hypot(1, sigma)))

    def model(x: np.ndarray, evaluation: int) -> np.ndarray:
        alpha, sigma = alpha_sigma(plan.evaluation_sigmas[evaluation])
        clean = MEAN + DEVIATION**2 * alpha / (alpha**2 * DEVIATION**2 + sigma**2) * (x - alpha * MEAN)
        return np.asarray((alpha * x - clean) / sigma, dtype=np.float32)

    found = last_latents(denoise(model, start * np.float32(high / grow(high)), plan, Silence())) * grow(low)
    shrink = ((DEVIATION**2 + low**2) / (DEVIATION**2 + high**2)) ** keeps
    exact = MEAN + (start * high - MEAN) * shrink
    return float(np.abs(found - exact).max() / np.abs(exact - MEAN).max())


@pytest.mark.parametrize(
    ("sampler", "order"), [("euler", 1), ("ddim", 1), ("heun", 2), ("dpmpp_2m", 2), ("unipc", 2), ("res_multistep", 2)]
)
def test_the_ode_converges_at_its_order(sampler: str, order: int) -> None:
    coarse, fine = (remaining_error(sampler, steps, keeps=0.5) for steps in (40, 80))
    assert fine < coarse / 2 ** (order - 0.25)


@pytest.mark.parametrize("sampler", ["euler_a", "ddpm", "dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde"])
def test_the_mean_is_exact(sampler: str) -> None:
    """The reverse SDE leads, on average, to the mean of all that the start may have come from, whatever the steps."""
    assert remaining_error(sampler, 20, keeps=1.0) <= SAMPLER_RELATIVE


@pytest.mark.parametrize("sampler", ["dpmpp_2s_a"])
def test_half_steps_along_the_ode_converge_to_the_mean(sampler: str) -> None:
    coarse, fine = (remaining_error(sampler, steps, keeps=1.0) for steps in (40, 80))
    assert fine < coarse / 2**0.75


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_any_sampler_may_end_above_zero(sampler: str) -> None:
    """The last of a caller's sigmas need not be 0; a step with one evaluation goes there as well."""
    plan = our_schedule(SDXL, sampler, sigmas=[14.0, 4.0, 1.0, 0.5])
    noise = BatchNoise([1, 2])
    found = last_latents(denoise(lambda x, i: np.zeros_like(x), noise.normal((4, 2, 2)), plan, noise))
    assert np.isfinite(found).all()
