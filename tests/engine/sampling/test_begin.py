"""Beginning at a picture: which steps remain, and the noise of the first, as diffusers' schedulers have them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline
from hypothesis import given
from hypothesis import strategies as st

from pocketxl.engine.errors import RequestError
from pocketxl.engine.sampling.begin import from_step, from_strength, noised
from pocketxl.engine.sampling.schedule import evaluation_timesteps

from ...fixtures.schedulers import PAIRS, SDXL, ZERO_SNR, make_scheduler, our_schedule
from ...tolerances import SAMPLER_RELATIVE, TIMESTEP_ABSOLUTE

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.mark.parametrize(("sampler", "schedule"), PAIRS)
@pytest.mark.parametrize("strength", [0.05, 0.3, 0.75, 1.0])
def test_the_steps_that_remain_and_their_noise(sampler: str, schedule: str, strength: float) -> None:
    scheduler = make_scheduler(sampler, schedule, dict(SDXL))
    scheduler.set_timesteps(20)
    pipeline = SimpleNamespace(scheduler=scheduler)
    timesteps, _ = StableDiffusionXLImg2ImgPipeline.get_timesteps(pipeline, 20, strength, None)
    ours = from_strength(our_schedule(SDXL, sampler, schedule, num_inference_steps=20), strength)
    np.testing.assert_allclose(evaluation_timesteps(ours), np.asarray(timesteps), atol=TIMESTEP_ABSOLUTE)
    latents, noise = np.random.default_rng(2).standard_normal((2, 1, 4, 6, 5), dtype=np.float32)
    theirs = scheduler.add_noise(torch.from_numpy(latents), torch.from_numpy(noise), timesteps[:1]).numpy()
    found = noised(latents, noise, ours, ours.begin)
    assert np.abs(found - theirs).max() <= SAMPLER_RELATIVE * np.abs(theirs).max()


@given(st.integers(1, 200), st.floats(0, 1))
def test_a_strength_leaves_its_share_of_the_steps_or_says_what_would_leave_one(steps: int, strength: float) -> None:
    whole = our_schedule(SDXL, "euler", num_inference_steps=steps)
    try:
        part = from_strength(whole, strength)
    except RequestError as error:
        assert int(steps * strength) == 0
        advice = float(str(error).split("raise it to ")[1].split(",")[0])
        assert len(from_strength(whole, advice).evaluations) >= 1
    else:
        assert len(part.evaluations) == int(steps * strength)
        assert part.end == whole.end


@pytest.mark.parametrize(("sampler", "evaluations"), [("euler", 4), ("heun", 7), ("dpmpp_sde", 7)])
def test_a_step_begins_at_its_first_evaluation(sampler: str, evaluations: int) -> None:
    part = from_step(our_schedule(SDXL, sampler, num_inference_steps=10), 6)
    assert len(part.evaluations) == evaluations
    assert part.evaluation_sigmas[part.begin] == part.sigmas[6]


def test_behind_the_last_step_latents_are_clean_and_without_signal_they_are_noise() -> None:
    latents, noise = np.ones((1, 4, 2, 2), np.float32), np.full((1, 4, 2, 2), 3, np.float32)
    schedule = our_schedule(ZERO_SNR, "ddim", num_inference_steps=5)
    assert np.array_equal(noised(latents, noise, schedule, 5), latents)
    assert np.array_equal(noised(latents, noise, schedule, 0), noise)
