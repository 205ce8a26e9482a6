"""A call is made of steps that can be had one by one: checked request, embeddings, samples, pictures."""

import pickle
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

from pocketxl.engine.errors import NumericError, RequestError
from pocketxl.engine.memory.plan import LEAST
from pocketxl.engine.pipeline import Pipeline

CALL: dict[str, Any] = {
    "prompt": ["a red cat", "sky"], "negative_prompt": "a dog", "seed": [3, 8], "height": 64, "width": 72,
    "num_inference_steps": 5, "denoising_end": 0.5, "output_type": "np",
}  # fmt: skip


def last(pipe: Pipeline, **options: Any) -> Any:
    request = pipe.request(**CALL | options)
    latents: Any = None
    for step in pipe.sample(request, pipe.encode(request)):
        latents = step.latents
    return latents


@pytest.mark.parametrize("budget", [None, LEAST])
def test_the_steps_together_are_the_call(pipe: Pipeline, tiny_engine: Path, budget: int | None) -> None:
    own = Pipeline.load(tiny_engine, threads=1, memory_budget=budget)
    output = pipe(**CALL)
    assert np.array_equal(own.decode(last(own), output_type="np"), output.images)
    assert (output.steps, output.interrupted) == (5, False)
    if budget == LEAST:
        assert not any(runner.loaded for runner in own.runners.values())


def test_embeddings_serve_many_samples(pipe: Pipeline) -> None:
    embeddings = pipe.encode(pipe.request(**CALL))
    for seed in ([3, 8], [5, 6]):
        request = pipe.request(**CALL | {"seed": seed})
        steps = pipe.sample(request, embeddings)
        found = list(steps)
        assert [step.index for step in found] == list(range(5))
        assert np.array_equal(found[-1].latents, pipe(**CALL | {"seed": seed, "output_type": "latent"}).images)


@pytest.mark.parametrize(
    "other", [{"prompt": "sky", "seed": 3}, {"guidance_scale": 1.0}, {"refiner": False, "denoising_end": None}]
)
def test_embeddings_of_another_request_are_refused(pipe: Pipeline, other: dict[str, Any]) -> None:
    embeddings = pipe.encode(pipe.request(**CALL | other))
    with pytest.raises(RequestError, match="encode this request"):
        next(pipe.sample(pipe.request(**CALL), embeddings))
    assert last(pipe) is not None


def test_latents_are_sent_in_and_the_last_ones_returned(pipe: Pipeline) -> None:
    request = pipe.request(**CALL)
    steps = pipe.sample(request, pipe.encode(request))
    next(steps)
    flat = np.full((2, 4, 8, 9), 0.5, np.float32)
    for _ in range(4):
        steps.send(flat)
    with pytest.raises(StopIteration) as end:
        steps.send(flat)
    assert np.array_equal(end.value.value, flat)


@pytest.mark.parametrize(
    ("sent", "error"),
    [(np.zeros((1, 4, 8, 9), np.float32), RequestError), (np.full((2, 4, 8, 9), np.nan, np.float32), NumericError)],
)
def test_other_latents_are_refused_and_the_pipeline_is_free_again(
    pipe: Pipeline, sent: np.ndarray, error: type[Exception]
) -> None:
    request = pipe.request(**CALL)
    steps = pipe.sample(request, pipe.encode(request))
    next(steps)
    with pytest.raises(error):
        steps.send(sent)
    assert np.array_equal(last(pipe), last(pipe))


def test_the_pipeline_is_busy_until_the_steps_are_closed(pipe: Pipeline) -> None:
    request = pipe.request(**CALL)
    steps = pipe.sample(request, pipe.encode(request))
    next(steps)
    with pytest.raises(RequestError, match="busy"):
        pipe(**CALL)
    steps.close()
    assert pipe(**CALL).images.shape == (2, 64, 72, 3)


def test_each_call_has_its_own_cancel_token(pipe: Pipeline) -> None:
    token = Event()
    token.set()
    stopped = pipe(**CALL, cancel=token)
    assert (stopped.steps, stopped.interrupted) == (1, True)
    assert not pipe(**CALL, cancel=Event()).interrupted
    assert not pipe(**CALL).interrupted


@pytest.mark.parametrize("latents", [np.zeros((4, 8, 8)), np.zeros((1, 3, 8, 8)), [[1.0]], None])
def test_only_latents_are_decoded(pipe: Pipeline, latents: Any) -> None:
    with pytest.raises(RequestError, match="latents must be an array"):
        pipe.decode(latents)
    with pytest.raises(RequestError, match="choose pil or np"):
        pipe.decode(np.zeros((1, 4, 8, 8), np.float32), output_type="latent")


def test_outputs_can_be_pickled(pipe: Pipeline) -> None:
    output = pipe(**CALL)
    again = pickle.loads(pickle.dumps(output))
    assert again.request == output.request
    assert np.array_equal(again.images, output.images)
