"""The loop: what it calls, in which order, what may be sent into it, and what stops it."""

from collections.abc import Generator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketxl.engine.errors import NumericError, RequestError
from pocketxl.engine.sampling.denoise import Step, check_replacement, denoise
from pocketxl.engine.sampling.noise import BatchNoise
from pocketxl.engine.sampling.samplers.table import SAMPLERS, SCHEDULES
from pocketxl.engine.sampling.schedule import Schedule, evaluation_timesteps, split

from ...fixtures.schedulers import SDXL, Gaussian, last_latents, our_schedule


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
    plan = our_schedule(SDXL, sampler=sampler, schedule=schedule, num_inference_steps=steps)
    timesteps, model, calls = evaluation_timesteps(plan), Gaussian(), []

    def called(x: np.ndarray, evaluation: int) -> np.ndarray:
        assert x.dtype == np.float32
        calls.append(evaluation)
        return model(x, float(timesteps[evaluation]))

    seeds = list(range(pictures))
    noise, latents = start(plan, seeds, shape)
    untouched = latents.copy()
    found = last_latents(denoise(called, latents, plan, noise, eta=0.5))
    assert calls == list(range(len(timesteps)))
    assert found.shape == latents.shape
    assert found.dtype == np.float32
    np.testing.assert_array_equal(latents, untouched)
    # A picture is the same, bit for bit, alone and in a batch.
    noise, latents = start(plan, seeds[-1:], shape)
    np.testing.assert_array_equal(last_latents(denoise(called, latents, plan, noise, eta=0.5)), found[-1:])


@pytest.mark.parametrize("sampler", ["euler", "ddim", "euler_a", "lcm"])
def test_without_history_two_parts_are_the_whole(sampler: str) -> None:
    plan = our_schedule(SDXL, sampler=sampler, num_inference_steps=10)
    first, second = split(plan, 0.6)

    def run(part: Schedule, latents: np.ndarray, noise: BatchNoise) -> np.ndarray:
        timesteps = evaluation_timesteps(part)
        return last_latents(denoise(lambda x, i: Gaussian()(x, float(timesteps[i])), latents, part, noise))

    noise, latents = start(plan, [1, 2], (4, 4, 4))
    whole = run(plan, latents, noise)
    noise, latents = start(plan, [1, 2], (4, 4, 4))
    np.testing.assert_array_equal(run(second, run(first, latents, noise), noise), whole)


def zeros(x: np.ndarray, evaluation: int) -> np.ndarray:
    return np.zeros_like(x)


def test_an_empty_part_returns_the_latents() -> None:
    plan = our_schedule(SDXL, num_inference_steps=2)
    _, second = split(plan, 0.9999)
    assert not second.evaluations
    noise, latents = start(plan, [1], (4, 2, 2))
    assert last_latents(denoise(zeros, latents, second, noise)) is latents


def answered(steps: Generator[Step, np.ndarray | None, np.ndarray], answers: dict[int, np.ndarray]) -> np.ndarray:
    """Go through the loop, sending `answers` at their steps."""
    step = next(steps)
    try:
        while True:
            step = steps.send(answers.get(step.index))
    except StopIteration as end:
        return np.asarray(end.value)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_evaluation_is_a_step(sampler: str) -> None:
    plan = our_schedule(SDXL, sampler=sampler, num_inference_steps=6)
    _, part = split(plan, 0.5)
    noise, latents = start(plan, [1], (4, 2, 2))
    seen = list(denoise(zeros, latents, part, noise))
    assert [(step.index, step.timestep) for step in seen] == list(enumerate(evaluation_timesteps(part).tolist()))
    noise, latents = start(plan, [1], (4, 2, 2))
    np.testing.assert_array_equal(seen[-1].latents, last_latents(denoise(zeros, latents, part, noise)))


@pytest.mark.parametrize("sampler", [name for name, row in SAMPLERS.items() if row.calls.per_step == 1])
def test_latents_that_are_sent_replace_those_there(sampler: str) -> None:
    plan = our_schedule(SDXL, sampler=sampler, num_inference_steps=4)
    inputs: list[np.ndarray] = []

    def model(x: np.ndarray, evaluation: int) -> np.ndarray:
        inputs.append(x)
        return np.zeros_like(x)

    noise, latents = start(plan, [1], (4, 2, 2))
    sevens = np.full_like(latents, 7.0, dtype=np.float64)
    found = answered(denoise(model, latents, plan, noise), {1: sevens, 3: sevens})
    scale = 1 / np.hypot(1, plan.sigmas[2]) if SAMPLERS[sampler].scaled_input else 1.0
    np.testing.assert_allclose(inputs[2], 7.0 * scale, rtol=1e-6)
    np.testing.assert_array_equal(found, sevens)
    assert found.dtype == np.float32


def test_closing_stops_the_loop() -> None:
    plan, calls = our_schedule(SDXL, num_inference_steps=10), []
    noise, latents = start(plan, [1], (4, 2, 2))

    def model(x: np.ndarray, evaluation: int) -> np.ndarray:
        calls.append(evaluation)
        return np.zeros_like(x)

    steps = denoise(model, latents, plan, noise)
    for step in steps:
        if step.index == 2:
            steps.close()
    assert calls == [0, 1, 2]
    np.testing.assert_array_equal(step.latents, latents)


def test_a_replacement_of_another_shape_is_refused() -> None:
    plan = our_schedule(SDXL, num_inference_steps=3)
    noise, latents = start(plan, [1], (4, 2, 2))
    with pytest.raises(RequestError, match=r"shape \(4, 2, 2\)"):
        answered(denoise(zeros, latents, plan, noise), {0: latents[0]})


@pytest.mark.parametrize("index", [0, 2])
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_a_replacement_that_is_not_finite_is_refused(bad: float, index: int) -> None:
    plan = our_schedule(SDXL, num_inference_steps=3)
    noise, latents = start(plan, [1], (4, 2, 2))
    with pytest.raises(NumericError, match="NaN or Inf"):
        answered(denoise(zeros, latents, plan, noise), {index: np.full(latents.shape, bad)})


def test_a_replacement_in_float32_is_not_copied() -> None:
    _, latents = start(our_schedule(SDXL, num_inference_steps=3), [1], (4, 2, 2))
    assert check_replacement(latents, latents) is latents


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_not_a_number_is_an_error_that_names_the_step(sampler: str, bad: float) -> None:
    plan = our_schedule(SDXL, sampler=sampler, num_inference_steps=5)
    noise, latents = start(plan, [1, 2], (4, 2, 2))

    def model(x: np.ndarray, evaluation: int) -> np.ndarray:
        prediction = np.zeros_like(x)
        if evaluation == 2:
            prediction[1, 0, 0, 0] = bad
        return prediction

    with pytest.raises(NumericError, match=f"evaluation 3 of {len(plan.timesteps)}.*{sampler}"):
        last_latents(denoise(model, latents, plan, noise))
