"""A call that is ended: by a token, a deadline, an interrupt; in the middle of a step; and across a fork."""

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketxl.engine import Pipeline, RequestError

CALL: dict[str, Any] = {"seed": 5, "height": 64, "width": 64, "num_inference_steps": 3, "output_type": "np"}


def test_ended_before_the_first_step_there_is_no_picture(pipe: Pipeline) -> None:
    cancel = threading.Event()
    cancel.set()
    for kind, shape in (("np", (0, 64, 64, 3)), ("latent", (0, 4, 8, 8))):
        output = pipe("a cat", **CALL | {"output_type": kind, "num_inference_steps": 1000}, deadline=1e-9)
        assert output.interrupted
        if output.steps == 0:  # the first component may be done before anybody looks at the clock
            assert output.images.shape == shape
    assert np.isfinite(pipe("a cat", **CALL).images).all(), "and it goes on"


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
            with pytest.raises(ZeroDivisionError):
                pipe("a cat", **CALL, callback_on_step_end=lambda *_: (fork(), 1 / 0))
        assert np.array_equal(pipe("a cat", **CALL).images, expected)
