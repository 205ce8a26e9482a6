"""`callback_on_step_end` and `interrupt` as in diffusers."""

from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from pocketxl.engine.errors import RequestError
from pocketxl.engine.memory.plan import LEAST
from pocketxl.engine.pipeline import Pipeline

from ..tolerances import PICTURE_CHANGE, PICTURE_MEAN, TIMESTEP_ABSOLUTE

if TYPE_CHECKING:
    from ..fixtures.experts import Experts

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' schedulers

ALONE: dict[str, Any] = {
    "prompt": "a red cat", "negative_prompt": "a dog", "seed": [3, 8], "num_images_per_prompt": 2, "height": 64,
    "width": 64, "num_inference_steps": 5, "refiner": False, "output_type": "np",
}  # fmt: skip
ON_TO_REFINER = ALONE | {"refiner": True, "denoising_end": 0.5}


class Recorder:
    """Notes what it is called with; `act(index, latents)` says what it returns."""

    def __init__(self, act: Any = lambda index, latents: {}) -> None:
        self.act = act
        self.calls: list[tuple[int, float]] = []
        self.pipes: list[Any] = []
        self.latents: list[np.ndarray] = []

    def __call__(self, pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> Any:
        self.pipes.append(pipe)
        self.calls.append((index, float(timestep)))
        assert set(tensors) - {"denoised"} == {"latents"}  # what is more than diffusers gives
        self.latents.append(np.asarray(tensors["latents"]).copy())
        return self.act(index, tensors["latents"])


def both(pipe: Pipeline, experts: "Experts", act: Any, **options: Any) -> tuple[Recorder, Recorder, float]:
    """Ours, diffusers', and the mean absolute difference of their pictures."""
    ours, theirs = Recorder(act), Recorder(act)
    made = pipe(**ALONE | options, callback_on_step_end=ours).images
    expected = experts(**ALONE | options, callback_on_step_end=theirs)
    return ours, theirs, float(np.abs(made - expected).mean())


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m"])
def test_called_as_diffusers_calls(pipe: Pipeline, experts: "Experts", sampler: str) -> None:
    ours, theirs, difference = both(pipe, experts, lambda index, latents: {}, sampler=sampler)
    assert [index for index, _ in ours.calls] == [index for index, _ in theirs.calls]
    expected = np.array([timestep for _, timestep in theirs.calls])
    np.testing.assert_allclose([timestep for _, timestep in ours.calls], expected, atol=TIMESTEP_ABSOLUTE)
    for mine, other in zip(ours.latents, theirs.latents, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-4 * np.abs(other).max())
    assert all(given is pipe for given in ours.pipes)
    assert difference <= PICTURE_MEAN


def test_counts_on_in_the_refiner(pipe: Pipeline) -> None:
    seen = Recorder()
    pipe(**ON_TO_REFINER, callback_on_step_end=seen)
    assert [index for index, _ in seen.calls] == list(range(5))
    timesteps = [timestep for _, timestep in seen.calls]
    assert timesteps == sorted(timesteps, reverse=True)
    assert timesteps[0] > 500 > timesteps[-1]


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m", "unipc"])
def test_returned_latents_are_used(pipe: Pipeline, experts: "Experts", sampler: str) -> None:
    def halve(index: int, latents: Any) -> dict[str, Any]:
        return {"latents": latents * 0.5} if index == 2 else {}

    *_, difference = both(pipe, experts, halve, sampler=sampler)
    assert difference <= PICTURE_MEAN
    unchanged = pipe(**ALONE, sampler=sampler).images
    changed = pipe(**ALONE, sampler=sampler, callback_on_step_end=Recorder(halve)).images
    assert np.abs(changed - unchanged).mean() > PICTURE_CHANGE


def test_last_latents_are_replaced(pipe: Pipeline) -> None:
    flat = np.full((2, 4, 8, 8), 0.25, np.float64)
    change = Recorder(lambda index, latents: {"latents": flat} if index == 4 else None)
    latents = pipe(**ON_TO_REFINER | {"output_type": "latent"}, callback_on_step_end=change).images
    assert latents.dtype == np.float32
    assert np.array_equal(latents, flat)


def test_tensors_are_taken(pipe: Pipeline) -> None:
    as_tensor = Recorder(lambda index, latents: {"latents": torch.from_numpy(latents) * 0.5})
    as_array = Recorder(lambda index, latents: {"latents": latents * np.float32(0.5)})
    one = pipe(**ALONE, callback_on_step_end=as_tensor).images
    assert np.array_equal(one, pipe(**ALONE, callback_on_step_end=as_array).images)


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (np.zeros((2, 4, 8, 8), np.float32), "ndarray"),
        ({"prompt_embeds": 1}, "prompt_embeds"),
        ({"latents": np.zeros((2, 4, 8, 8), np.int64)}, "int64"),
        ({"latents": None}, "object"),
        ({"latents": torch.zeros(2, 4, 8, 8, dtype=torch.bfloat16)}, "cannot read"),
        ({"latents": np.zeros((1, 4, 8, 8), np.float32)}, r"\(1, 4, 8, 8\)"),
    ],
)
def test_other_answers_are_errors(pipe: Pipeline, answer: Any, match: str) -> None:
    with pytest.raises(RequestError, match=match):
        pipe(**ALONE, callback_on_step_end=Recorder(lambda index, latents: answer))


def test_interrupt_from_the_callback(pipe: Pipeline, experts: "Experts") -> None:
    def stop(target: Any, index: int, timestep: Any, tensors: Any) -> dict[str, Any]:
        seen.append(index)
        if index == 2:
            target.interrupt() if isinstance(target, Pipeline) else setattr(target, "_interrupt", True)
        return {"latents": tensors["latents"] * 0.9}  # those of the last step too

    seen: list[int] = []
    made = pipe(**ALONE, callback_on_step_end=stop).images
    assert seen == [0, 1, 2]
    expected = experts(**ALONE, callback_on_step_end=stop)
    assert np.abs(made - expected).mean() <= PICTURE_MEAN


def test_interrupt_in_the_base_skips_the_refiner(pipe: Pipeline) -> None:
    seen = Recorder(lambda index, latents: pipe.interrupt())
    images = pipe(**ON_TO_REFINER, callback_on_step_end=seen).images
    assert len(seen.calls) == 1
    assert images.shape == (2, 64, 64, 3)
    assert np.isfinite(images).all()


def test_interrupt_from_another_thread(pipe: Pipeline) -> None:
    stepped, interrupted = Event(), Event()

    def wait(index: int, latents: Any) -> None:
        stepped.set()
        assert interrupted.wait(60)

    def interrupt() -> None:
        assert stepped.wait(60)
        pipe.interrupt()
        interrupted.set()

    thread = Thread(target=interrupt)
    thread.start()
    seen = Recorder(wait)
    pipe(**ON_TO_REFINER, callback_on_step_end=seen)
    thread.join()
    assert len(seen.calls) == 1


def test_an_old_interrupt_does_not_count(pipe: Pipeline) -> None:
    expected = pipe(**ALONE).images
    pipe.interrupt()
    assert np.array_equal(pipe(**ALONE).images, expected)


@pytest.mark.parametrize(("kind", "index"), [(ValueError, 0), (KeyboardInterrupt, 4)])  # in the base, in the refiner
def test_exceptions_pass_and_release(pipe: Pipeline, kind: type[BaseException], index: int) -> None:
    def fail(at: int, latents: Any) -> None:
        if at == index:
            raise kind("no more")

    pipe.close()
    tight = Pipeline(pipe.models, pipe.runners, pipe.tokenizers, memory_budget=LEAST)
    with pytest.raises(kind, match="no more"):
        tight(**ON_TO_REFINER, callback_on_step_end=Recorder(fail))
    assert not any(runner.loaded for runner in pipe.runners.values())
    assert np.array_equal(tight(**ON_TO_REFINER).images, pipe(**ON_TO_REFINER).images)


@pytest.mark.parametrize("what", ["call", "close"])
def test_the_callback_cannot_use_its_pipeline(pipe: Pipeline, what: str) -> None:
    def again(index: int, latents: Any) -> None:
        pipe(**ALONE) if what == "call" else pipe.close()

    with pytest.raises(RequestError, match="busy"):
        pipe(**ALONE, callback_on_step_end=Recorder(again))
    assert pipe(**ALONE).images.shape == (2, 64, 64, 3)
