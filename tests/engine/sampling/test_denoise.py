"""The loop: what it calls, in which order, what a callback may do, and what stops it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketxl.engine.errors import NumericError, RequestError
from pocketxl.engine.sampling.denoise import STOP, denoise
from pocketxl.engine.sampling.noise import BatchNoise
from pocketxl.engine.sampling.samplers.table import SAMPLERS
from pocketxl.engine.sampling.schedule import Schedule, evaluation_timesteps, make_schedule, split

from ...fixtures.schedulers import SCHEDULES, SDXL, Gaussian


def start(schedule: Schedule, seeds: list[int], shape: tuple[int, ...]) -> tuple[BatchNoise, np.ndarray]:
    noise = BatchNoise(seeds)
    return noise, noise.normal(shape) * np.float32(schedule.init_noise_sigma)


@given(
    st.sampled_from(list(SAMPLERS)),
    st.sampled_from(list(SCHEDULES)),
    st.integers(1, 9),
    st.integers(1, 3),
    st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6)),
)
@settings(deadline=None, max_examples=150)
def test_any_shape_and_count(sampler: str, schedule: str, steps: int, pictures: int, shape: tuple[int, ...]) -> None:
    plan = make_schedule(SDXL, sampler=sampler, schedule=schedule, num_inference_steps=steps)
    timesteps, model, calls = evaluation_timesteps(plan), Gaussian(), []

    def called(x: np.ndarray, evaluation: int) -> np.ndarray:
        assert x.dtype == np.float32
        calls.append(evaluation)
        return model(x, float(timesteps[evaluation]))

    seeds = list(range(pictures))
    noise, latents = start(plan, seeds, shape)
    untouched = latents.copy()
    found = denoise(called, latents, plan, noise, eta=0.5)
    assert calls == list(range(len(timesteps)))
    assert found.shape == latents.shape
    assert found.dtype == np.float32
    np.testing.assert_array_equal(latents, untouched)
    # A picture is the same, bit for bit, alone and in a batch.
    noise, latents = start(plan, seeds[-1:], shape)
    np.testing.assert_array_equal(denoise(called, latents, plan, noise, eta=0.5), found[-1:])


@pytest.mark.parametrize("sampler", ["euler", "ddim", "euler_a", "lcm"])
def test_without_history_two_parts_are_the_whole(sampler: str) -> None:
    plan = make_schedule(SDXL, sampler=sampler, num_inference_steps=10)
    first, second = split(plan, 0.6)

    def run(part: Schedule, latents: np.ndarray, noise: BatchNoise) -> np.ndarray:
        timesteps = evaluation_timesteps(part)
        return denoise(lambda x, i: Gaussian()(x, float(timesteps[i])), latents, part, noise)

    noise, latents = start(plan, [1, 2], (4, 4, 4))
    whole = run(plan, latents, noise)
    noise, latents = start(plan, [1, 2], (4, 4, 4))
    np.testing.assert_array_equal(run(second, run(first, latents, noise), noise), whole)


def test_an_empty_part_returns_the_latents() -> None:
    plan = make_schedule(SDXL, num_inference_steps=2)
    _, second = split(plan, 0.9999)
    assert not second.evaluations
    noise, latents = start(plan, [1], (4, 2, 2))
    assert denoise(None, latents, second, noise) is latents  # type: ignore[arg-type]  # the model is never called


def zeros(x: np.ndarray, evaluation: int) -> np.ndarray:
    return np.zeros_like(x)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_callback_sees_every_evaluation(sampler: str) -> None:
    plan, seen = make_schedule(SDXL, sampler=sampler, num_inference_steps=6), []
    _, part = split(plan, 0.5)
    noise, latents = start(plan, [1], (4, 2, 2))
    final = denoise(zeros, latents, part, noise, on_step=lambda i, t, x: seen.append((i, t, x)))
    assert [(i, t) for i, t, _ in seen] == list(enumerate(evaluation_timesteps(part).tolist()))
    np.testing.assert_array_equal(seen[-1][2], final)


@pytest.mark.parametrize("sampler", [name for name, row in SAMPLERS.items() if row.again == "never"])
def test_a_callback_replaces_the_latents(sampler: str) -> None:
    plan = make_schedule(SDXL, sampler=sampler, num_inference_steps=4)
    inputs: list[np.ndarray] = []

    def model(x: np.ndarray, evaluation: int) -> np.ndarray:
        inputs.append(x)
        return np.zeros_like(x)

    noise, latents = start(plan, [1], (4, 2, 2))
    sevens = np.full_like(latents, 7.0)
    found = denoise(model, latents, plan, noise, on_step=lambda i, t, x: sevens if i in (1, 3) else None)
    scale = 1 / np.hypot(1, plan.sigmas[2]) if SAMPLERS[sampler].scaled_input else 1.0
    np.testing.assert_allclose(inputs[2], 7.0 * scale, rtol=1e-6)
    np.testing.assert_array_equal(found, sevens)


def test_a_callback_stops_the_loop() -> None:
    plan, calls = make_schedule(SDXL, num_inference_steps=10), []
    noise, latents = start(plan, [1], (4, 2, 2))

    def model(x: np.ndarray, evaluation: int) -> np.ndarray:
        calls.append(evaluation)
        return np.zeros_like(x)

    found = denoise(model, latents, plan, noise, on_step=lambda i, t, x: STOP if i == 2 else None)
    assert calls == [0, 1, 2]
    np.testing.assert_array_equal(found, latents)


def test_a_callback_may_raise() -> None:
    plan = make_schedule(SDXL, num_inference_steps=10)
    noise, latents = start(plan, [1], (4, 2, 2))

    def on_step(index: int, timestep: float, latents: np.ndarray) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        denoise(zeros, latents, plan, noise, on_step=on_step)


def test_a_replacement_of_another_shape_is_refused() -> None:
    plan = make_schedule(SDXL, num_inference_steps=3)
    noise, latents = start(plan, [1], (4, 2, 2))
    with pytest.raises(RequestError, match=r"shape \(4, 2, 2\)"):
        denoise(zeros, latents, plan, noise, on_step=lambda i, t, x: x[0])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_not_a_number_is_an_error_that_names_the_step(sampler: str, bad: float) -> None:
    plan = make_schedule(SDXL, sampler=sampler, num_inference_steps=5)
    noise, latents = start(plan, [1, 2], (4, 2, 2))

    def model(x: np.ndarray, evaluation: int) -> np.ndarray:
        prediction = np.zeros_like(x)
        if evaluation == 2:
            prediction[1, 0, 0, 0] = bad
        return prediction

    with pytest.raises(NumericError, match=f"evaluation 3 of {len(plan.timesteps)}.*{sampler}"):
        denoise(model, latents, plan, noise)


@pytest.mark.parametrize("eta", [-0.1, 1.1, float("nan")])
def test_a_bad_eta_is_refused(eta: float) -> None:
    plan = make_schedule(SDXL, sampler="ddim", num_inference_steps=3)
    noise, latents = start(plan, [1], (4, 2, 2))
    with pytest.raises(RequestError, match="eta"):
        denoise(zeros, latents, plan, noise, eta=eta)
