"""Timesteps and noise levels against diffusers' `set_timesteps`, the hand-off's cut, and what is refused."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pocketxl.engine.errors import IncompatibleError, RequestError
from pocketxl.engine.sampling.samplers.table import SAMPLERS, SCHEDULES
from pocketxl.engine.sampling.schedule import evaluation_timesteps, split

from ...fixtures.schedulers import PAIRS, SDXL, VELOCITY, ZERO_SNR, make_scheduler, our_schedule
from ...tolerances import SIGMA_RELATIVE, SIGMA_RELATIVE_RESCALED, TIMESTEP_ABSOLUTE

CONFIGS = {"epsilon": SDXL, "velocity": VELOCITY, "zero_snr": ZERO_SNR}


def curve_ends_below_the_trained(sampler: str, schedule: str, config: str, steps: int) -> bool:
    """Where diffusers' `trailing` lays one timestep too many, at -1, a curve between its first and last ends there."""
    curved = schedule in ("karras", "exponential") and not SAMPLERS[sampler].placement.whole_timesteps
    return curved and config == "zero_snr" and len(np.arange(1000, 0, -1000 / steps)) > steps


@given(st.sampled_from(PAIRS), st.sampled_from(list(CONFIGS)), st.integers(1, 120))
@settings(deadline=None, max_examples=150)
def test_equals_diffusers(pair: tuple[str, str], config: str, steps: int) -> None:
    sampler, schedule = pair
    assume(not curve_ends_below_the_trained(sampler, schedule, config, steps))
    if sampler in ("lcm", "tcd"):
        steps = min(steps, 50)
    ours = our_schedule(CONFIGS[config], sampler, schedule, num_inference_steps=steps)
    theirs = make_scheduler(sampler, schedule, CONFIGS[config])
    theirs.set_timesteps(steps)
    # Where diffusers' `trailing` lays one timestep too many (see below), the others are still the same.
    expected = theirs.timesteps.numpy()[: len(ours.timesteps)]
    whole = not np.issubdtype(expected.dtype, np.floating)
    np.testing.assert_allclose(evaluation_timesteps(ours), expected, rtol=0, atol=0 if whole else TIMESTEP_ABSOLUTE)
    if sampler not in ("ddim", "lcm", "ddpm", "tcd"):
        sigmas = theirs.sigmas.numpy()
        tolerance = SIGMA_RELATIVE_RESCALED if config == "zero_snr" else SIGMA_RELATIVE
        # With second evaluations diffusers lists every level twice, but the first and the last.
        sigmas = np.append(sigmas[: len(ours.timesteps)][:: SAMPLERS[sampler].calls.per_step], sigmas[-1])
        np.testing.assert_allclose(ours.sigmas, sigmas, rtol=tolerance, atol=0)
        np.testing.assert_allclose(ours.init_noise_sigma, float(theirs.init_noise_sigma), rtol=tolerance)
    else:
        assert ours.init_noise_sigma == 1.0


def test_trailing_never_lays_a_timestep_too_many() -> None:
    assert len(make_scheduler("ddim", "sgm_uniform", SDXL).timesteps) == 1000
    theirs = make_scheduler("euler", "sgm_uniform", SDXL)
    theirs.set_timesteps(61)
    assert theirs.timesteps[-1] == -1
    ours = our_schedule(SDXL, schedule="sgm_uniform", num_inference_steps=61)
    assert len(ours.timesteps) == 61
    assert min(ours.timesteps) >= 0


@pytest.mark.parametrize("steps", [61, 103])
@pytest.mark.parametrize("schedule", ["karras", "exponential"])
@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_a_trailing_curve_ends_at_the_last_timestep(sampler: str, schedule: str, steps: int) -> None:
    """diffusers' ends at the lowest trained level instead, because of the timestep too many."""
    assert curve_ends_below_the_trained(sampler, schedule, "zero_snr", steps)
    theirs = make_scheduler(sampler, schedule, ZERO_SNR)
    lowest = float(((1 - theirs.alphas_cumprod[0]) / theirs.alphas_cumprod[0]) ** 0.5)
    theirs.set_timesteps(steps)
    assert float(theirs.sigmas[-2]) == pytest.approx(lowest, rel=1e-5)
    spaced = our_schedule(ZERO_SNR, sampler, num_inference_steps=steps)
    ours = our_schedule(ZERO_SNR, sampler, schedule, num_inference_steps=steps)
    assert ours.sigmas[-2] == pytest.approx(spaced.sigmas[-2], rel=1e-5)
    assert ours.sigmas[-2] > 1.5 * lowest


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("config", CONFIGS)
def test_every_sampler_takes_every_schedule(sampler: str, schedule: str, config: str) -> None:
    ours = our_schedule(CONFIGS[config], sampler, schedule, num_inference_steps=12)
    assert ours.steps == 12
    assert len(evaluation_timesteps(ours)) == (12 if SAMPLERS[sampler].calls.per_step == 1 else 23)
    assert (np.diff(ours.sigmas) < 0).all()
    assert (np.diff(ours.timesteps) <= 0).all()
    # The model is asked at the noise level that the latents have, to the nearest whole timestep.
    ladder = np.asarray(make_scheduler("euler", "default", CONFIGS[config]).sigmas)[-2::-1]
    low = np.interp(np.asarray(ours.timesteps) - 1, np.arange(1000), ladder)
    high = np.interp(np.asarray(ours.timesteps) + 1, np.arange(1000), ladder)
    found = np.minimum(ours.evaluation_sigmas, ladder[-1])
    assert ((low <= found * 1.00001) & (found <= high * 1.00001)).all()


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_thousand_steps_work_or_say_why(sampler: str, schedule: str) -> None:
    if sampler in ("lcm", "tcd") and schedule == "default":
        with pytest.raises(RequestError, match=r"1\.\.50"):
            our_schedule(SDXL, sampler=sampler, num_inference_steps=1000)
    elif SAMPLERS[sampler].falling and schedule == "default":
        # The multistep ones lay 1001 timesteps and leave out the last, dpmpp_sde one past the last; there are 1000.
        with pytest.raises(RequestError, match=r"same noise level.*sgm_uniform"):
            our_schedule(SDXL, sampler=sampler, num_inference_steps=1000)
    else:
        assert our_schedule(SDXL, sampler=sampler, schedule=schedule, num_inference_steps=1000).steps == 1000


def test_more_steps_than_were_trained_are_refused() -> None:
    with pytest.raises(RequestError, match=r"num_inference_steps is 401.*1 to 400"):
        our_schedule({**SDXL, "num_train_timesteps": 400}, num_inference_steps=401)


@pytest.mark.parametrize("sampler", ["ddim", "lcm", "ddpm", "tcd"])
def test_noise_prediction_from_zero_signal_is_refused(sampler: str) -> None:
    with pytest.raises(IncompatibleError, match="zero signal"):
        our_schedule({**ZERO_SNR, "prediction_type": "epsilon"}, sampler=sampler, num_inference_steps=4)


def test_the_config_may_choose_karras_and_a_name_overrides_it() -> None:
    config = {**SDXL, "use_karras_sigmas": True}
    assert our_schedule(config).sigmas == our_schedule(SDXL, schedule="karras").sigmas
    assert our_schedule(config, schedule="sgm_uniform").sigmas == our_schedule(SDXL, schedule="sgm_uniform").sigmas


def test_keys_that_were_only_defaults_are_the_samplers_own() -> None:
    config = {**SDXL, "_use_default_values": ["timestep_spacing", "steps_offset"]}
    theirs = make_scheduler("ddim", "default", config)
    theirs.set_timesteps(7)
    assert list(our_schedule(config, sampler="ddim", num_inference_steps=7).timesteps) == theirs.timesteps.tolist()


@pytest.mark.parametrize("sampler", ["euler", "ddim"])
def test_timesteps_past_the_last_trained_are_refused(sampler: str) -> None:
    with pytest.raises(RequestError, match=r"timesteps begins at 400.*399"):
        our_schedule({**SDXL, "num_train_timesteps": 400}, sampler, timesteps=[400, 2])


@pytest.mark.parametrize("sampler", ["ddim", "lcm", "dpmpp_2m"])
def test_timesteps_that_become_one_are_refused(sampler: str) -> None:
    assert our_schedule(SDXL, timesteps=[9.7, 9.2]).steps == 2
    with pytest.raises(RequestError, match=r"timesteps.*9\.7, 9\.2.*equal"):
        our_schedule(SDXL, sampler, timesteps=[9.7, 9.2])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_custom_steps_work_for_every_sampler(sampler: str) -> None:
    by_timestep = our_schedule(SDXL, sampler=sampler, timesteps=[999, 700, 400, 100])
    by_sigma = our_schedule(SDXL, sampler=sampler, sigmas=[*by_timestep.sigmas[:-1], 0.0])
    assert by_timestep.steps == by_sigma.steps == 4
    np.testing.assert_allclose(by_sigma.timesteps, by_timestep.timesteps, atol=TIMESTEP_ABSOLUTE)


@given(st.sampled_from(list(SAMPLERS)), st.integers(1, 50), st.floats(0.001, 0.999))
@settings(deadline=None)
def test_the_parts_cover_the_whole(sampler: str, steps: int, share: float) -> None:
    whole = our_schedule(SDXL, sampler=sampler, num_inference_steps=steps)
    first, second = split(whole, share)
    assert first.begin == 0
    assert second.end == whole.end
    if SAMPLERS[sampler].calls.per_step == 1:
        assert second.begin == first.end
    else:
        # The second part may begin with the step that the first part left unfinished.
        assert second.begin in (first.end, first.end - 1)
        assert second.begin % 2 == 0
    joined = np.concatenate([evaluation_timesteps(first), evaluation_timesteps(second)])
    np.testing.assert_array_equal(joined[: first.end], evaluation_timesteps(whole)[: first.end])
    assert first.sigmas == second.sigmas == whole.sigmas
