"""A budget that a component does not fit into as a whole: it is streamed, and the picture is the same."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketxl.engine.errors import MemoryBudgetError
from pocketxl.engine.folder.manifest import read_manifest
from pocketxl.engine.memory.plan import LEAST
from pocketxl.engine.memory.sizes import format_bytes
from pocketxl.engine.memory.streaming import bytes_read, told
from pocketxl.engine.pipeline import Pipeline
from pocketxl.engine.runners import ort_memory

from ..fixtures.segmented import segmented
from ..fixtures.watched import Log, Watched, with_runners

CALL: dict[str, Any] = {
    "prompt": "a red apple", "seed": 3, "height": 64, "width": 64, "output_type": "latent", "num_inference_steps": 2,
    "denoising_end": 0.5,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return segmented(tmp_path_factory.mktemp("streaming") / "engine")


@pytest.fixture(scope="module")
def pipe(folder: Path) -> Iterator[Pipeline]:
    """Made to look as if weights were all that counts, which they are at full size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ort_memory, "arena_bytes", lambda alive: alive // 100)
        patch.setattr(ort_memory, "ARENA_GAPS", 0.01)
        patch.setattr(ort_memory, "STREAMED_BESIDE", 1 << 10)
        with Pipeline.load(folder, threads=1) as pipeline:
            yield pipeline


def least(pipe: Pipeline) -> int:
    """The smallest budget, as the refusal of a smaller one names it."""
    with pytest.raises(MemoryBudgetError) as caught:
        pipe.plan(**CALL, budget="1MiB")
    low, high = 1 << 20, pipe.plan(**CALL, budget=LEAST).peak_bytes
    while high - low > 1:
        middle = (low + high) // 2
        try:
            pipe.plan(**CALL, budget=middle)
            high = middle
        except MemoryBudgetError:
            low = middle
    assert f"needs at least {format_bytes(high)}" in str(caught.value)
    return high


def test_only_what_does_not_fit_is_streamed(pipe: Pipeline) -> None:
    whole = pipe.plan(**CALL, budget=LEAST)
    assert not whole.streamed, "the least memory without the price in time"
    fits = pipe.plan(**CALL, budget=whole.peak_bytes)
    assert not fits.streamed
    tight = pipe.plan(**CALL, budget=whole.peak_bytes - 1)
    (first,) = tight.streamed
    assert first == max(whole.footprints, key=lambda name: whole.footprints[name].weights)
    assert not tight.keep
    assert tight.peak_bytes < whole.peak_bytes
    least_plan = pipe.plan(**CALL, budget=least(pipe))
    assert {first} < least_plan.streamed


def test_the_picture_is_the_same_to_the_bit(pipe: Pipeline, folder: Path) -> None:
    expected = pipe(**CALL).images
    for runner in pipe.runners.values():
        runner.release()
    budget, log = least(pipe), Log()
    watched = with_runners(pipe, lambda runner: Watched(runner, log, pipe.runners), memory_budget=budget)
    plan = watched.plan(**CALL)
    assert plan.peak_bytes <= budget
    assert {"base/unet", "refiner/unet"} <= plan.streamed
    assert np.array_equal(watched(**CALL).images, expected)
    loads = {(event, name) for event, name, _ in log.events if event != "call"}
    assert loads == {("load_streamed" if n in plan.streamed else "load", n) for n in plan.footprints}
    assert all(len(resident) == 1 for _, _, resident in log.events), "one after another, each released before the next"
    assert not any(runner.loaded for runner in pipe.runners.values())
    sizes = {name: entry.weight_bytes for name, entry in read_manifest(folder).components.items()}
    read = sum(sizes[name] for event, name, _ in log.events if event == "call" and name in plan.streamed)
    assert bytes_read(plan, {name: sizes[name] for name in plan.streamed}) == read
    (said,) = told(folder, plan)
    assert ", ".join(sorted(plan.streamed)) in said
    assert f"a picture reads {format_bytes(read)}" in said


def test_what_was_loaded_whole_makes_room(pipe: Pipeline) -> None:
    pipe(**CALL)
    assert pipe.runners["base/unet"].loaded
    tight = Pipeline(pipe.models, pipe.runners, pipe.tokenizers, memory_budget=least(pipe))
    tight(**CALL)
    assert not any(runner.loaded for runner in pipe.runners.values())


def test_calls_side_by_side_each_take_their_own_segments(pipe: Pipeline) -> None:
    budget = pipe.plan(**CALL, budget=LEAST).peak_bytes - 1
    two = Pipeline(pipe.models, pipe.runners, pipe.tokenizers, memory_budget=budget, max_concurrent_calls=2)
    alone, both = pipe.plan(**CALL, budget=budget), two.plan(**CALL, budget=budget)
    name = next(iter(alone.streamed))
    index = next(i for i, phase in enumerate(alone.phases) if phase.component == name)
    assert name in both.streamed
    assert both.working_bytes(index, "host") == 2 * alone.working_bytes(index, "host")


def test_an_engine_without_segments_is_refused_as_before(tiny_engine: Path) -> None:
    whole = Pipeline.load(tiny_engine, threads=1)
    budget = whole.plan(**CALL, budget=LEAST).peak_bytes
    with pytest.raises(MemoryBudgetError, match="needs at least"):
        whole.plan(**CALL, budget=budget - (1 << 20))
