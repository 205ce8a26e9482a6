"""Pictures one after another, and prompts that are not encoded twice."""

import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketxl.engine import MemoryBudgetError, RequestError
from pocketxl.engine.pipeline import Pipeline
from pocketxl.engine.progress import ProgressEvent

from ..fixtures.watched import Log, Watched

CALL: dict[str, Any] = {
    "num_images_per_prompt": 2, "seed": 5, "height": 64, "width": 64, "num_inference_steps": 2, "output_type": "np",
    "sampler": "euler_a",
}  # fmt: skip


def watched(pipe: Pipeline, log: Log, **options: Any) -> Pipeline:
    runners = {name: Watched(runner, log, pipe.runners) for name, runner in pipe.runners.items()}
    return Pipeline(pipe.models, runners, pipe.tokenizers, **options)


def calls(log: Log) -> list[str]:
    return [name for event, name, _ in log.events if event == "call"]


def test_the_same_pictures_each_finished_before_the_next(pipe: Pipeline) -> None:
    prompts = ["a red cat", "a blue dog"]
    together = pipe(prompts, **CALL)
    log = Log()
    for index, output in enumerate(watched(pipe, log).stream(prompts, **CALL)):
        assert np.array_equal(output.images, together.images[index : index + 1])
        assert output.seeds == together.seeds[index : index + 1]
        assert (output.request.images, output.request.prompts) == (1, together.request.prompts[index // 2 :][:1])
        assert Counter(calls(log))["vae_decoder"] == index + 1, "the next one is not begun"
    assert index == 3


def test_latents_of_the_caller_are_shared_out(pipe: Pipeline) -> None:
    latents = np.random.default_rng(0).standard_normal((2, 4, 8, 8)).astype(np.float32)
    together = pipe("a cat", **CALL | {"latents": latents, "sampler": "euler"}).images
    apart = pipe.stream("a cat", **CALL | {"latents": latents, "sampler": "euler"})
    assert np.array_equal(np.concatenate([output.images for output in apart]), together)


def test_arguments_are_checked_before_the_first_picture(pipe: Pipeline) -> None:
    with pytest.raises(RequestError, match="width is 63"):
        pipe.stream("a cat", width=63)
    with pytest.raises(RequestError, match="deadline is 0"):
        pipe.stream("a cat", deadline=0)


def test_what_was_encoded_is_not_encoded_again(pipe: Pipeline) -> None:
    log = Log()
    own = watched(pipe, log)
    first = own("a red cat", negative_prompt="a dog", **CALL).images
    before = len(log.events)
    assert np.array_equal(own("a red cat", negative_prompt="a dog", **CALL).images, first)
    again = {name for _, name, _ in log.events[before:]}
    assert not any(name.startswith("text_encoder") for name in again), "nor loaded"
    own("a red cat", negative_prompt="a cat", **CALL)
    assert Counter(calls(log))["text_encoder_2"] == 3, "the prompt, and two negatives"
    own.close()
    own("a red cat", negative_prompt="a cat", **CALL)
    assert Counter(calls(log))["text_encoder_2"] == 5


def test_interrupted_is_the_last(pipe: Pipeline) -> None:
    cancel = threading.Event()

    def stop_in_the_second(event: ProgressEvent) -> None:
        if event.stage == "denoise" and event.step == 1 and made:
            cancel.set()

    made: list[Any] = []
    for output in pipe.stream(["a", "b"], **CALL, progress=stop_in_the_second, cancel=cancel):
        made.append((output.interrupted, output.steps, len(output.images)))
    assert made == [(False, 2, 1), (True, 1, 1)]


def test_several_calls_at_once_share_the_weights(tiny_engine: Path) -> None:
    at_once, inside, most = threading.Barrier(3), Counter[str](), []
    lock = threading.Lock()

    def meet(pipe: Any, index: int, timestep: Any, tensors: Any) -> None:
        if index == 0:
            at_once.wait(60)  # breaks unless all three are in the loop
        with lock:
            inside["now"] += 1
            most.append(inside["now"])
            inside["now"] -= 1

    with Pipeline.load(tiny_engine, threads=1, max_concurrent_calls=3) as pipe:
        alone = [pipe("a cat", **CALL | {"seed": seed}).images for seed in range(3)]
        made: dict[int, Any] = {}

        def call(seed: int) -> None:
            made[seed] = pipe("a cat", **CALL | {"seed": seed}, callback_on_step_end=meet).images

        threads = [threading.Thread(target=call, args=(seed,)) for seed in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(np.array_equal(made[seed], alone[seed]) for seed in range(3))
        one, three = Pipeline.load(tiny_engine).plan("a cat", **CALL), pipe.plan("a cat", **CALL)
        assert three.weight_bytes(0, "host") == one.weight_bytes(0, "host")
        assert three.working_bytes(0, "host") == 3 * one.working_bytes(0, "host")


def test_a_budget_is_for_all_calls_together(tiny_engine: Path) -> None:
    need = Pipeline.load(tiny_engine, memory_budget=0).plan("a cat", **CALL).peak_bytes
    Pipeline.load(tiny_engine, memory_budget=need).plan("a cat", **CALL)
    with pytest.raises(MemoryBudgetError):
        Pipeline.load(tiny_engine, memory_budget=need, max_concurrent_calls=8).plan("a cat", **CALL)


@pytest.mark.parametrize("count", [0, -1, 65, True, "2"])
def test_senseless_counts_are_refused(tiny_engine: Path, count: Any) -> None:
    with pytest.raises(RequestError, match="max_concurrent_calls is"):
        Pipeline.load(tiny_engine, max_concurrent_calls=count)
