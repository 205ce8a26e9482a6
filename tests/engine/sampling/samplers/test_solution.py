"""Every sampler on every schedule, those that diffusers lacks too, against what the mathematics says.

For pictures whose pixels are N(mean, deviation²) the exact denoiser is known, and so is where the probability-flow ODE
ends; a stochastic sampler ends somewhere in the same distribution.
"""

import numpy as np
import pytest

from pocketxl.engine.sampling.denoise import denoise
from pocketxl.engine.sampling.noise import BatchNoise
from pocketxl.engine.sampling.samplers.base import Schedule, alpha_sigma
from pocketxl.engine.sampling.samplers.table import SAMPLERS

from ....fixtures.schedulers import SCHEDULES, SDXL, VELOCITY, last_latents, our_schedule
from ....tolerances import SOLUTION_RELATIVE, SPREAD_RELATIVE

MEAN, DEVIATION = 0.4, 0.7
STEPS = 200
DETERMINISTIC = ("euler", "heun", "dpmpp_2m", "ddim", "unipc")


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
@pytest.mark.parametrize("sampler", ["euler_a", "dpmpp_2m_sde", "dpmpp_sde"])
def test_the_distribution_is_reached(sampler: str, schedule: str) -> None:
    plan = our_schedule(SDXL, sampler, schedule, num_inference_steps=STEPS)
    _, found = sample(plan, (4, 32, 32), range(6))
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
