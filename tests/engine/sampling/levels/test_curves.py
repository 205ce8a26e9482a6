"""Schedules that diffusers has not, or not alone: against ComfyUI's and A1111's definitions, scipy, and a table."""

import numpy as np
import pytest
from diffusers.schedulers import AysSchedules
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta as beta_distribution

from pocketxl.engine.sampling.levels.align import SDXL as TABLE
from pocketxl.engine.sampling.levels.quantile import SHAPE, beta_quantile

from ....fixtures.schedulers import SDXL, make_scheduler, our_schedule
from ....tolerances import SIGMA_RELATIVE, TIMESTEP_ABSOLUTE

TRAINED = np.asarray(make_scheduler("euler", "default", {**SDXL, "timestep_spacing": "linspace"}).sigmas)[-2::-1]
"""The trained levels, rising; a scheduler that was not told its steps has all of them."""
STEPS = st.integers(1, 120)


def levels(schedule: str, steps: int, sampler: str = "euler") -> np.ndarray:
    plan = our_schedule(SDXL, sampler, schedule, num_inference_steps=steps)
    assert plan.sigmas[-1] == 0
    return np.asarray(plan.sigmas[:-1])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_the_quantile_is_scipy_s(shares: list[float]) -> None:
    found = beta_quantile(np.asarray(shares))
    np.testing.assert_allclose(found, beta_distribution.ppf(shares, SHAPE, SHAPE), rtol=0, atol=1e-14)


def test_the_quantile_at_its_ends_and_middle() -> None:
    np.testing.assert_array_equal(beta_quantile(np.asarray([0.0, 1.0])), [0.0, 1.0])
    assert beta_quantile(np.asarray([0.5]))[0] == pytest.approx(0.5, abs=1e-15)


@given(STEPS)
def test_normal_is_even_in_the_timestep(steps: int) -> None:
    at = np.linspace(999, 0, steps)
    expected = np.exp(np.interp(at, np.arange(1000), np.log(TRAINED)))
    np.testing.assert_allclose(levels("normal", steps), expected, rtol=SIGMA_RELATIVE)
    plan = our_schedule(SDXL, "euler", "normal", num_inference_steps=steps)
    np.testing.assert_allclose(plan.timesteps, at, atol=TIMESTEP_ABSOLUTE)


@given(STEPS)
def test_simple_counts_down_from_the_top(steps: int) -> None:
    expected = [TRAINED[-(1 + int(x * (len(TRAINED) / steps)))] for x in range(steps)]
    np.testing.assert_allclose(levels("simple", steps), expected, rtol=SIGMA_RELATIVE)


@given(st.integers(1, 999))
def test_ddim_uniform_counts_up_from_the_second(steps: int) -> None:
    every = TRAINED[1 :: len(TRAINED) // steps]
    found = levels("ddim_uniform", steps)
    assert len(found) == steps
    # The definition goes on to the top; what is more than asked for is left out there.
    np.testing.assert_allclose(found[::-1], every[:steps], rtol=SIGMA_RELATIVE)


@given(STEPS)
def test_kl_optimal_is_even_in_the_angle(steps: int) -> None:
    found = levels("kl_optimal", steps, "dpmpp_2m")
    angles = np.arctan(found)
    assert angles[0] == pytest.approx(np.arctan(TRAINED[-1]), rel=1e-6)
    if steps > 1:
        assert angles[-1] == pytest.approx(np.arctan(TRAINED[0]), rel=1e-5)
        np.testing.assert_allclose(np.diff(angles), np.diff(angles).mean(), rtol=1e-4)


def test_align_your_steps_is_the_published_table() -> None:
    published = AysSchedules["StableDiffusionXLSigmas"]
    assert [*TABLE[:-1], 0.0] == published
    found = our_schedule(SDXL, "dpmpp_2m", "align_your_steps", num_inference_steps=10)
    np.testing.assert_allclose(found.sigmas, published, rtol=SIGMA_RELATIVE)
    # The timesteps that go with it, as published beside it; a level is between two of them.
    np.testing.assert_allclose(found.timesteps, AysSchedules["StableDiffusionXLTimesteps"], atol=1)


@given(STEPS)
def test_align_your_steps_between_the_table_s(steps: int) -> None:
    """Log-linear interpolation of the eleven levels at steps + 1 places, the last of which is the end."""
    at = np.linspace(0, 1, steps + 1)
    rising = np.exp(np.interp(at, np.linspace(0, 1, len(TABLE)), np.log(TABLE[::-1])))
    np.testing.assert_allclose(levels("align_your_steps", steps), rising[::-1][:-1], rtol=SIGMA_RELATIVE)
