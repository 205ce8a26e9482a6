"""ControlNets in the memory plan: planned like any component, and released like any."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketxl.engine.errors import MemoryBudgetError
from pocketxl.engine.memory.plan import LEAST
from pocketxl.engine.pipeline import Pipeline

from ...fixtures.controlnets import edges

Folders = Mapping[str, tuple[Path, Path]]
OPTIONS: Mapping[str, Any] = {
    "num_inference_steps": 2,
    "width": 64,
    "height": 64,
    "seed": 1,
    "refiner": False,
    "output_type": "np",
}
UNET = "controlnets/canny/unet"


def load(engine: Path, controlnets: Folders, **options: Any) -> Pipeline:
    folders = {name: built for name, (_, built) in controlnets.items()}
    return Pipeline.load(engine, threads=1, controlnets=folders, **options)


def test_a_call_without_one_is_planned_and_made_as_before(
    pipe: Pipeline, tiny_engine: Path, tiny_controlnets: Folders
) -> None:
    with load(tiny_engine, tiny_controlnets) as steered:
        assert steered.plan("a cat", **OPTIONS).table() == pipe.plan("a cat", **OPTIONS).table()
        assert (steered("a cat", **OPTIONS).images == pipe("a cat", **OPTIONS).images).all()
        assert not any(runner.loaded for name, runner in steered.runners.items() if name.startswith("controlnets/"))


def test_its_phases_stand_before_the_loop_and_it_is_beside_the_unet_in_it(
    tiny_engine: Path, tiny_controlnets: Folders
) -> None:
    with load(tiny_engine, tiny_controlnets) as steered:
        plan = steered.plan("a cat", control_image={"canny": edges(64, 64)}, budget=LEAST, **OPTIONS)
    phases = {phase.name: index for index, phase in enumerate(plan.phases)}
    assert phases["hint canny"] < phases["condition canny"] < phases["condition base"] < phases["denoise base"]
    assert "hint depth" not in phases
    assert plan.resident(phases["denoise base"]) == ("base/unet", UNET)
    assert plan.resident(phases["hint canny"]) == ("controlnets/canny/hint_encoder",)
    alone, both = plan.footprints["base/unet"].weights, plan.weight_bytes(phases["denoise base"], "host")
    assert both == alone + plan.footprints[UNET].weights


@pytest.mark.parametrize("budget", [None, LEAST], ids=["kept", "released"])
def test_what_is_released_changes_no_picture(tiny_engine: Path, tiny_controlnets: Folders, budget: int | None) -> None:
    hint = {"canny": edges(64, 64)}
    with load(tiny_engine, tiny_controlnets, memory_budget=budget) as steered:
        first = steered("a cat", control_image=hint, **OPTIONS).images
        assert steered.runners[UNET].loaded == (budget is None)
        plain = steered("a cat", **OPTIONS).images
        assert (steered("a cat", control_image=hint, **OPTIONS).images == first).all()
        assert np.abs(plain - first).mean() > 1e-4
        steered.close()
        assert not any(runner.loaded for runner in steered.runners.values())


def test_a_budget_that_is_too_small_with_it_says_so(tiny_engine: Path, tiny_controlnets: Folders) -> None:
    with load(tiny_engine, tiny_controlnets) as steered:
        least = steered.plan("a cat", budget=LEAST, **OPTIONS).peak_bytes
        hint = {"canny": edges(512, 512)}
        big = {**OPTIONS, "width": 512, "height": 512}
        enough = steered.plan("a cat", budget=LEAST, control_image=hint, **big).peak_bytes
        assert enough > least
        with pytest.raises(MemoryBudgetError):
            steered.plan("a cat", budget=enough // 2, control_image=hint, **big)


def test_guidance_in_calls_of_two_rows_gives_the_same_picture(tiny_engine: Path, tiny_controlnets: Folders) -> None:
    """GPUs take both sides of guidance in one call; so here, where the runners are told to."""
    hint = {"canny": edges(64, 64)}
    options = {**OPTIONS, "negative_prompt": "a dog"}
    with load(tiny_engine, tiny_controlnets) as steered:
        one_row = steered("a cat", control_image=hint, **options).images
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pocketxl.engine.runners.ort.OrtRunner.rows", 2)
            two_rows = steered("a cat", control_image=hint, **options).images
    assert np.abs(one_row - two_rows).mean() < 1e-5
