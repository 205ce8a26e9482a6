"""The memory plan is kept: what is loaded in each phase, and that pictures do not depend on it."""

import weakref
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketxl.engine.errors import MemoryBudgetError, RequestError
from pocketxl.engine.memory.plan import LEAST, MemoryPlan
from pocketxl.engine.pipeline import Pipeline
from pocketxl.engine.runners.base import Held, Runner, Value, Values
from pocketxl.engine.specs import Role

from ..fixtures.watched import Log, Watched, Wrapped, with_runners

CALL: dict[str, Any] = {
    "prompt": "a red cat", "negative_prompt": "a dog", "seed": 3, "height": 64, "width": 64, "output_type": "np",
    "num_inference_steps": 4, "denoising_end": 0.5,
}  # fmt: skip


def budgets(pipe: Pipeline) -> dict[str, int | None]:
    """All kept, something given up, nothing kept."""
    least = pipe.plan(**CALL, budget=LEAST).peak_bytes
    most = pipe.plan(**CALL).peak_bytes
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
    (index,) = (i for i, phase in enumerate(plan.phases) if component == phase.component)
    return index


@pytest.mark.parametrize("name", ["all", "some", "tight"])
def test_the_plan_is_kept(pipe: Pipeline, name: str) -> None:
    expected = pipe(**CALL).images
    budget = budgets(pipe)[name]
    plan = pipe.plan(**CALL, budget=budget)
    watched, log = watch(pipe, budget)
    for _ in range(2):  # the second call finds loaded what the first one kept
        assert np.array_equal(watched(**CALL).images, expected)
        assert loaded(pipe) == plan.keep
    assert {component for _, component, _ in log.events} == set(plan.footprints)
    for _, component, resident in log.events:
        index = phase_of(plan, component)
        assert component in resident <= set(plan.resident(index))
        assert sum(plan.footprints[n].weights for n in resident) < plan.phase_bytes(index, "host") <= plan.peak_bytes
    assert budget is None or plan.peak_bytes <= budget
    loads = [component for event, component, _ in log.events if event == "load"]
    again = {component for component in plan.footprints if component not in plan.keep}
    most = max(len(resident) for _, _, resident in log.events)
    if name == "all":
        assert plan.keep == set(plan.footprints)
    if name == "some":
        assert plan.keep
        assert again
    if name == "tight":
        assert not plan.keep
        assert most == 1
    # The second call has the text encoders' outputs from the first.
    assert all(loads.count(name) >= 1 + (not name.startswith("text_encoder")) for name in again)


def test_a_smaller_plan_makes_room(pipe: Pipeline) -> None:
    pipe(**CALL)
    budget = budgets(pipe)["tight"]
    tight = Pipeline(pipe.models, pipe.runners, pipe.tokenizers, memory_budget=budget)
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


class Kept:
    """The bytes of conditioning that are alive when a U-Net or the VAE is called, at most."""

    def __init__(self, pipe: Pipeline) -> None:
        self.alive: dict[str, int] = {}
        self.conditionings: list[weakref.ref[np.ndarray]] = []
        self.pipe = with_runners(pipe, self.wrap, memory_budget=LEAST)

    def wrap(self, runner: Runner) -> Runner:
        return _Noting(runner, self)

    def note(self, runner: Runner, outputs: Mapping[str, Value]) -> None:
        if runner.spec.role is Role.CONDITIONER:
            self.conditionings += [weakref.ref(value) for value in outputs.values() if isinstance(value, np.ndarray)]
        alive = sum(array.nbytes for ref in self.conditionings if (array := ref()) is not None)
        self.alive[runner.name] = max(alive, self.alive.get(runner.name, 0))


class _Noting(Wrapped):
    def __init__(self, inner: Runner, kept: Kept) -> None:
        super().__init__(inner)
        self.kept = kept

    def __call__(self, inputs: Values, held: Held | None = None, *, keep: Collection[str] = ()) -> dict[str, Value]:
        outputs = super().__call__(inputs, held, keep=keep)
        self.kept.note(self.inner, outputs)
        return outputs


@pytest.mark.parametrize("prompts", [1, 8])
def test_conditioning_is_planned_for_every_prompt_and_dropped_in_time(pipe: Pipeline, prompts: int) -> None:
    call = CALL | {"prompt": ["a red cat", "sky " * 100, *["a dog"] * 6][:prompts], "seed": None}
    kept = Kept(pipe)
    plan = pipe.plan(**call, budget=LEAST)
    kept.pipe(**call)
    for name in ("base", "refiner"):
        planned = plan.phases[phase_of(plan, f"{name}/unet")].constant_bytes
        assert 0.99 * planned <= kept.alive[f"{name}/unet"] <= planned  # not both models' at once
    assert kept.alive["vae_decoder"] == 0


def test_the_plan_of_eight_prompts_is_not_that_of_one(pipe: Pipeline) -> None:
    eight = CALL | {"prompt": ["a red cat"] * 8, "seed": None}
    images = CALL | {"num_images_per_prompt": 8}
    assert pipe.plan(**eight, budget=LEAST).peak_bytes > pipe.plan(**images, budget=LEAST).peak_bytes


def test_a_plan_refuses_what_a_call_refuses(pipe: Pipeline) -> None:
    for wrong in ({"width": "a"}, {"width": 63}, {"num_inference_steps": 0}, {"guidance_scale": -1}, {"steps": 3}):
        with pytest.raises(RequestError):
            pipe.plan("a cat", **wrong)
