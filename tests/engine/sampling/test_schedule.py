"""Timesteps and noise levels against diffusers' `set_timesteps`, the hand-off's cut, and what is refused."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketxl.engine.errors import IncompatibleError, RequestError
from pocketxl.engine.sampling.samplers.table import SAMPLERS
from pocketxl.engine.sampling.schedule import evaluation_timesteps, make_schedule, split

from ...fixtures.schedulers import PAIRS, SCHEDULES, SDXL, VELOCITY, ZERO_SNR, make_scheduler
from ...tolerances import SIGMA_RELATIVE, SIGMA_RELATIVE_RESCALED, TIMESTEP_ABSOLUTE

CONFIGS = {"epsilon": SDXL, "velocity": VELOCITY, "zero_snr": ZERO_SNR}


@given(st.sampled_from(PAIRS), st.sampled_from(list(CONFIGS)), st.integers(1, 120))
@settings(deadline=None, max_examples=150)
def test_equals_diffusers(pair: tuple[str, str], config: str, steps: int) -> None:
    sampler, schedule = pair
    if sampler == "lcm":
        steps = min(steps, 50)
    ours = make_schedule(CONFIGS[config], sampler=sampler, schedule=schedule, num_inference_steps=steps)
    theirs = make_scheduler(sampler, schedule, CONFIGS[config])
    theirs.set_timesteps(steps)
    # Where diffusers' `trailing` lays one timestep too many (see below), the others are still the same.
    expected = theirs.timesteps.numpy()[: len(ours.timesteps)]
    whole = not np.issubdtype(expected.dtype, np.floating)
    np.testing.assert_allclose(evaluation_timesteps(ours), expected, rtol=0, atol=0 if whole else TIMESTEP_ABSOLUTE)
    if sampler not in ("ddim", "lcm"):
        sigmas = theirs.sigmas.numpy()
        tolerance = SIGMA_RELATIVE_RESCALED if config == "zero_snr" else SIGMA_RELATIVE
        # With second evaluations diffusers lists every level twice, but the first and the last.
        sigmas = np.append(sigmas[: len(ours.timesteps)][:: 1 if SAMPLERS[sampler].again == "never" else 2], sigmas[-1])
        np.testing.assert_allclose(ours.sigmas, sigmas, rtol=tolerance, atol=0)
        np.testing.assert_allclose(ours.init_noise_sigma, float(theirs.init_noise_sigma), rtol=tolerance)
    else:
        assert ours.init_noise_sigma == 1.0


def test_trailing_never_lays_a_timestep_too_many() -> None:
    assert len(make_scheduler("ddim", "sgm_uniform", SDXL).timesteps) == 1000
    theirs = make_scheduler("euler", "sgm_uniform", SDXL)
    theirs.set_timesteps(61)
    assert theirs.timesteps[-1] == -1
    ours = make_schedule(SDXL, schedule="trailing", num_inference_steps=61)
    assert len(ours.timesteps) == 61
    assert min(ours.timesteps) >= 0


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("config", CONFIGS)
def test_every_sampler_takes_every_schedule(sampler: str, schedule: str, config: str) -> None:
    ours = make_schedule(CONFIGS[config], sampler=sampler, schedule=schedule, num_inference_steps=12)
    assert ours.steps == 12
    assert len(evaluation_timesteps(ours)) == (12 if SAMPLERS[sampler].again == "never" else 23)
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
    if sampler == "lcm" and schedule == "default":
        with pytest.raises(RequestError, match=r"1\.\.50"):
            make_schedule(SDXL, sampler=sampler, num_inference_steps=1000)
    elif SAMPLERS[sampler].spacing == "strided" and schedule == "default":
        # These lay 1001 timesteps and leave out the last; there are 1000.
        with pytest.raises(RequestError, match=r"same noise level.*sgm_uniform"):
            make_schedule(SDXL, sampler=sampler, num_inference_steps=1000)
    else:
        assert make_schedule(SDXL, sampler=sampler, schedule=schedule, num_inference_steps=1000).steps == 1000


@pytest.mark.parametrize("steps", [0, -1, 1001, 2.5, "20", True, None, float("nan")])
def test_bad_step_counts_are_refused(steps: Any) -> None:
    with pytest.raises(RequestError, match=r"num_inference_steps.*1 to 1000"):
        make_schedule(SDXL, num_inference_steps=steps)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("prediction_type", "sample"),
        ("prediction_type", "flow_prediction"),
        ("beta_schedule", "laplace"),
        ("timestep_spacing", "quadratic"),
        ("thresholding", True),
        ("timestep_type", "continuous"),
        ("use_flow_sigmas", True),
        ("use_beta_sigmas", True),
        ("final_sigmas_type", "one"),
        ("interpolation_type", "log_linear"),
        ("trained_betas", [0.1, 0.2]),
        ("trained_betas", [2.0] * 1000),
    ],
)
def test_configs_that_mean_something_else_are_refused(key: str, value: object) -> None:
    with pytest.raises(IncompatibleError, match=f"{key}|not finite"):
        make_schedule({**SDXL, key: value}, num_inference_steps=2)


@pytest.mark.parametrize("sampler", ["ddim", "lcm"])
def test_noise_prediction_from_zero_signal_is_refused(sampler: str) -> None:
    with pytest.raises(IncompatibleError, match="zero signal"):
        make_schedule({**ZERO_SNR, "prediction_type": "epsilon"}, sampler=sampler, num_inference_steps=4)


def test_the_config_may_choose_karras_and_a_name_overrides_it() -> None:
    config = {**SDXL, "use_karras_sigmas": True}
    assert make_schedule(config).sigmas == make_schedule(SDXL, schedule="karras").sigmas
    assert make_schedule(config, schedule="trailing").sigmas == make_schedule(SDXL, schedule="trailing").sigmas


def test_keys_that_were_only_defaults_are_the_samplers_own() -> None:
    config = {**SDXL, "_use_default_values": ["timestep_spacing", "steps_offset"]}
    theirs = make_scheduler("ddim", "default", config)
    theirs.set_timesteps(7)
    assert list(make_schedule(config, sampler="ddim", num_inference_steps=7).timesteps) == theirs.timesteps.tolist()


@pytest.mark.parametrize(
    "custom",
    [
        {"timesteps": []},
        {"timesteps": [10, 20]},
        {"timesteps": [20, 20]},
        {"timesteps": [1000, 2]},
        {"timesteps": [5, -1]},
        {"timesteps": [float("nan"), 5]},
        {"sigmas": [1.0]},
        {"sigmas": [1.0, 2.0, 0.0]},
        {"sigmas": [2.0, 1.0, -1.0]},
        {"sigmas": [float("inf"), 1.0, 0.0]},
        {"timesteps": [999, 500], "sigmas": [10.0, 1.0, 0.0]},
        {"timesteps": [999, 500], "schedule": "karras"},
        {"sigmas": [10.0, 1.0, 0.0], "schedule": "karras"},
    ],
)
@pytest.mark.parametrize("sampler", ["euler", "ddim"])
def test_bad_custom_steps_are_refused(sampler: str, custom: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=r"timesteps|sigmas"):
        make_schedule(SDXL, sampler=sampler, **custom)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_custom_steps_work_for_every_sampler(sampler: str) -> None:
    by_timestep = make_schedule(SDXL, sampler=sampler, timesteps=[999, 700, 400, 100])
    by_sigma = make_schedule(SDXL, sampler=sampler, sigmas=[*by_timestep.sigmas[:-1], 0.0])
    assert by_timestep.steps == by_sigma.steps == 4
    np.testing.assert_allclose(by_sigma.timesteps, by_timestep.timesteps, atol=TIMESTEP_ABSOLUTE)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_share_outside_is_refused(share: float) -> None:
    with pytest.raises(RequestError, match="denoising_end"):
        split(make_schedule(SDXL), share)


@given(st.sampled_from(list(SAMPLERS)), st.integers(1, 50), st.floats(0.001, 0.999))
@settings(deadline=None)
def test_the_parts_cover_the_whole(sampler: str, steps: int, share: float) -> None:
    whole = make_schedule(SDXL, sampler=sampler, num_inference_steps=steps)
    first, second = split(whole, share)
    assert first.begin == 0
    assert second.end == whole.end
    if SAMPLERS[sampler].again == "never":
        assert second.begin == first.end
    else:
        # The second part may begin with the step that the first part left unfinished.
        assert second.begin in (first.end, first.end - 1)
        assert second.begin % 2 == 0
    joined = np.concatenate([evaluation_timesteps(first), evaluation_timesteps(second)])
    np.testing.assert_array_equal(joined[: first.end], evaluation_timesteps(whole)[: first.end])
    assert first.sigmas == second.sigmas == whole.sigmas
