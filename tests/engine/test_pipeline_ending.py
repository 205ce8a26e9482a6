"""A call that is ended: by a token, a deadline, an interrupt; in the middle of a step; and across a fork."""

import os
import threading
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketxl.engine import Pipeline, RequestError
from pocketxl.engine.ending import Ended
from pocketxl.engine.runners.base import Held, Runner, Value, Values

from ..fixtures.watched import Wrapped

CALL: dict[str, Any] = {"seed": 5, "height": 64, "width": 64, "num_inference_steps": 3, "output_type": "np"}


class Stopped(Wrapped):
    """A component that is stopped in the middle of its call number `at`, as a back end does whose call has ended."""

    def __init__(self, inner: Runner, at: int) -> None:
        super().__init__(inner)
        self.left = at

    def __call__(self, inputs: Values, held: Held | None = None, *, keep: Collection[str] = ()) -> dict[str, Value]:
        self.left -= 1
        if self.left == 0:
            raise Ended
        return super().__call__(inputs, held, keep=keep)


@pytest.mark.parametrize(
    ("component", "at", "steps"),
    [("text_encoder", 1, 0), ("base/conditioner", 1, 0), ("base/unet", 1, 0), ("base/unet", 2, 0), ("base/unet", 4, 1)],
)  # two calls of the U-Net a step
def test_what_is_there_when_a_component_is_stopped(pipe: Pipeline, component: str, at: int, steps: int) -> None:
    call = CALL | {"refiner": False, "negative_prompt": "a dog"}
    expected = pipe("a cat", **call, callback_on_step_end=lambda pipe, index, *_: pipe.interrupt()).images
    for kind, shape in (("np", (0, 64, 64, 3)), ("latent", (0, 4, 8, 8)), ("pil", (0,))):
        runners = {**pipe.runners, component: Stopped(pipe.runners[component], at)}
        output = Pipeline(pipe.models, runners, pipe.tokenizers)("a cat", **call | {"output_type": kind})
        assert (output.interrupted, output.steps) == (True, steps)
        if steps == 0:
            assert np.shape(output.images) == shape
        elif kind == "np":
            assert np.array_equal(output.images, expected), "the first step's, decoded"


def test_a_deadline_ends_the_loop(pipe: Pipeline) -> None:
    output = pipe("a cat", **CALL | {"num_inference_steps": 1000, "sampler": "euler"}, deadline=0.2)
    assert output.interrupted
    assert output.steps < 1000


@pytest.mark.parametrize("deadline", [0, -1.0, float("nan"), "soon", True])
def test_senseless_deadlines_are_refused(pipe: Pipeline, deadline: Any) -> None:
    with pytest.raises(RequestError, match="deadline is"):
        pipe("a cat", deadline=deadline)


def test_interrupt_ends_every_call_that_runs(tiny_engine: Path) -> None:
    in_the_loop = threading.Barrier(3)

    def meet(pipe: Any, index: int, timestep: Any, tensors: Any) -> None:
        if index == 0:
            in_the_loop.wait(60)

    with Pipeline.load(tiny_engine, threads=1, max_concurrent_calls=2) as pipe:
        outputs: list[Any] = []

        def call() -> None:
            outputs.append(pipe("a cat", **CALL | {"num_inference_steps": 1000}, callback_on_step_end=meet))

        threads = [threading.Thread(target=call) for _ in range(2)]
        for thread in threads:
            thread.start()
        in_the_loop.wait(60)
        pipe.interrupt()
        for thread in threads:
            thread.join()
        assert [output.interrupted for output in outputs] == [True, True]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("when", ["after a call", "during a call"])
def test_a_forked_child_makes_its_own_pictures(tiny_engine: Path, tmp_path: Path, when: str) -> None:
    with Pipeline.load(tiny_engine, threads=2) as pipe:
        expected = pipe("a cat", **CALL).images

        def child() -> None:
            made = pipe("a cat", **CALL).images
            (tmp_path / "same").write_text(str(np.array_equal(made, expected)))
            os._exit(0)

        def fork(*_: Any) -> None:
            process = os.fork()
            if process == 0:
                try:
                    child()
                finally:
                    os._exit(1)
            assert os.waitpid(process, 0)[1] == 0
            assert (tmp_path / "same").read_text() == "True"

        if when == "after a call":
            fork()
        else:
            pipe("a cat", **CALL, callback_on_step_end=fork)
        assert np.array_equal(pipe("a cat", **CALL).images, expected)
