"""The memory plan is kept: what is loaded in each phase, and that pictures do not depend on it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketxl.engine.errors import MemoryBudgetError
from pocketxl.engine.memory.plan import LEAST, MemoryPlan
from pocketxl.engine.pipeline import Pipeline
from pocketxl.engine.runners.base import Runner

from ..fixtures.watched import Log, Watched, with_runners

CALL: dict[str, Any] = {
    "prompt": "a red cat", "negative_prompt": "a dog", "seed": 3, "height": 64, "width": 64, "output_type": "np",
    "num_inference_steps": 4, "denoising_end": 0.5,
}  # fmt: skip


def budgets(pipe: Pipeline) -> dict[str, int | None]:
    """All kept, something given up, nothing kept."""
    least = pipe.plan(width=64, height=64, steps=4, budget=LEAST).peak_bytes
    most = pipe.plan(width=64, height=64, steps=4, budget=None).peak_bytes
    assert most > least
    return {"all": None, "some": most - 1, "tight": least}


def loaded(pipe: Pipeline) -> set[str]:
    return {name for name, runner in pipe.runners.items() if runner.loaded}


def watch(pipe: Pipeline, budget: int | None) -> tuple[Pipeline, Log]:
    for runner in pipe.runners.values():
        runner.release()
    log = Log()
    return with_runners(pipe, lambda runner: Watched(runner, log, pipe.runners), memory_budget=budget), log


def phase_of(plan: MemoryPlan, component: str) -> int:
    (index,) = (i for i, phase in enumerate(plan.phases) if component in phase.components)
    return index


@pytest.mark.parametrize("name", ["all", "some", "tight"])
def test_the_plan_is_kept(pipe: Pipeline, name: str) -> None:
    expected = pipe(**CALL).images
    budget = budgets(pipe)[name]
    plan = pipe.plan(width=64, height=64, steps=4, budget=budget)
    watched, log = watch(pipe, budget)
    for _ in range(2):  # the second call finds loaded what the first one kept
        assert np.array_equal(watched(**CALL).images, expected)
        assert loaded(pipe) == plan.keep
    assert {component for _, component, _ in log.events} == set(plan.weights)
    for _, component, resident in log.events:
        index = phase_of(plan, component)
        assert component in resident <= set(plan.resident(index))
        assert sum(pipe.runners[n].weight_bytes for n in resident) < plan.phase_bytes(index) <= plan.peak_bytes
    assert budget is None or plan.peak_bytes <= budget
    loads = [component for event, component, _ in log.events if event == "load"]
    again = {component for component in plan.weights if component not in plan.keep}
    most = max(len(resident) for _, _, resident in log.events)
    if name == "all":
        assert plan.keep == set(plan.weights)
    if name == "some":
        assert plan.keep
        assert again
    if name == "tight":
        assert not plan.keep
        assert most == 1
    assert all(loads.count(component) >= 2 for component in again)


def test_a_smaller_plan_makes_room(pipe: Pipeline) -> None:
    pipe(**CALL)
    budget = budgets(pipe)["tight"]
    tight = Pipeline(pipe.manifest, pipe.runners, pipe._tokenizers, memory_budget=budget)
    assert loaded(pipe)
    tight(**CALL)
    assert not loaded(pipe)


def test_hopeless_budget(tiny_engine: Path) -> None:
    hopeless = Pipeline.load(tiny_engine, memory_budget="1MiB", threads=1)

    def forbid(runner: Runner) -> Any:
        def load() -> None:
            raise AssertionError(f"{runner.name} was loaded")

        runner.load = load  # type: ignore[method-assign]
        return runner

    pipe = with_runners(hopeless, forbid, memory_budget=1 << 20)
    with pytest.raises(MemoryBudgetError, match=r"64x64 needs at least \d+ MiB .*budget is 1 MiB"):
        pipe(**CALL)
    assert not loaded(pipe)


def test_a_budget_too_small_for_a_size(pipe: Pipeline) -> None:
    watched, log = watch(pipe, budgets(pipe)["tight"])
    with pytest.raises(MemoryBudgetError):
        watched(**{**CALL, "height": 2048, "width": 2048})
    assert not log.events
    assert watched(**CALL).images.shape == (1, 64, 64, 3)


def test_close_gives_everything_back(pipe: Pipeline) -> None:
    expected = pipe(**CALL).images
    pipe.close()
    assert not loaded(pipe)
    assert np.array_equal(pipe(**CALL).images, expected)
