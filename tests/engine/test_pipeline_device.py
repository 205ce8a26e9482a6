"""A whole pipeline on a card: what is where, when, and that the picture is the processor's."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketxl.engine.errors import MemoryBudgetError
from pocketxl.engine.folder.manifest import read_manifest
from pocketxl.engine.memory.plan import LEAST
from pocketxl.engine.pipeline import Pipeline

from ..fixtures.command_line import run
from ..fixtures.cuda_on_host import HostDriver
from ..fixtures.rtx_on_host import install, rtx_engine
from ..fixtures.tensorrt_on_host import Library
from ..tolerances import FLOAT16_EDGE_PICTURE, PLAN_TAKEN_AT_LEAST

CALL: dict[str, Any] = {
    "prompt": "a red cat", "negative_prompt": "a dog", "seed": 3, "height": 64, "width": 64, "output_type": "np",
    "num_inference_steps": 4, "denoising_end": 0.5,
}  # fmt: skip


@pytest.fixture(scope="session")
def folder(tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rtx_engine(tiny_engine, tmp_path_factory.mktemp("rtx"))


@pytest.fixture
def driver() -> HostDriver:
    return HostDriver(total=8 << 30)


@pytest.fixture
def library(driver: HostDriver, monkeypatch: pytest.MonkeyPatch) -> Library:
    return install(driver, monkeypatch)


@pytest.fixture
def card(folder: Path, library: Library) -> Iterator[Pipeline]:
    with Pipeline.load(folder) as pipeline:
        yield pipeline


def net(card: Pipeline, bytes_planned: int) -> int:
    """A plan's device bytes without what the driver itself is allowed, which this one does not take."""
    return bytes_planned - next(iter(card.runners.values())).device.overhead["device"]


def test_the_picture_is_the_processor_s(card: Pipeline, pipe: Pipeline) -> None:
    found, expected = card(**CALL).images, pipe(**CALL).images
    assert np.abs(found - expected).mean() < FLOAT16_EDGE_PICTURE


def test_a_step_moves_latents_and_time_vectors_and_nothing_else(
    card: Pipeline, driver: HostDriver, library: Library
) -> None:
    request = card.request(**CALL)
    steps = card.sample(request, card.encode(request))
    next(steps)
    for index in (1, 3):  # the second step of the base, and of the refiner
        up, down, calls = len(driver.uploads), len(driver.downloads), len(library.executions)
        if index == 3:
            next(steps)  # the refiner's keys and values are made, and its first step
            up, down, calls = len(driver.uploads), len(driver.downloads), len(library.executions)
        next(steps)
        assert len(library.executions) == calls + 1, "both sides of the guidance are one call"
        assert library.executions[-1] == library.executions[-2], "what the library captured is good again"
        latents = 2 * 4 * 8 * 8 * np.dtype(np.float16).itemsize
        assert driver.uploads[up] == latents
        assert len(driver.uploads) == up + 2
        assert driver.downloads[down:] == [latents]
        assert driver.from_pinned >= 3
    steps.close()


@pytest.mark.parametrize("given", ["by the caller", "by the card"])
def test_what_does_not_fit_is_swapped_and_the_plan_is_kept(
    card: Pipeline, driver: HostDriver, folder: Path, given: str
) -> None:
    expected = card(**CALL).images
    whole, least = card.plan(**CALL), card.plan(**CALL, budget=LEAST)
    assert whole.keep == set(whole.footprints)
    assert net(card, least.peak_bytes) < driver.most <= net(card, whole.peak_bytes)
    card.close()
    for budget in (whole.peak_bytes - 1, (whole.peak_bytes + least.peak_bytes) // 2, least.peak_bytes):
        small = HostDriver(total=driver.total if given == "by the caller" else net(card, budget))
        with pytest.MonkeyPatch.context() as patch:
            install(small, patch)
            with Pipeline.load(folder, memory_budget=budget if given == "by the caller" else None) as swapped:
                plan = swapped.plan(**CALL)
                assert plan.keep < set(plan.footprints)
                for _ in range(2):
                    assert np.array_equal(swapped(**CALL).images, expected)
                    assert {name for name, runner in swapped.runners.items() if runner.loaded} == plan.keep
                assert PLAN_TAKEN_AT_LEAST * net(card, plan.peak_bytes) <= small.most <= net(card, plan.peak_bytes)
                assert net(card, plan.peak_bytes) <= net(card, budget)
        assert not small.memory_now


def test_a_card_that_is_too_small_for_everything_is_an_error_and_no_refusal_by_the_plan(
    folder: Path, driver: HostDriver, library: Library
) -> None:
    driver.total = 1 << 20
    with Pipeline.load(folder) as card:
        assert not card.plan(**CALL).keep
        with pytest.raises(MemoryBudgetError, match="GPU memory"):
            card(**CALL)
        assert not any(runner.loaded for runner in card.runners.values())
        assert not driver.memory_now


def test_closing_gives_the_card_back_and_the_pipeline_works_on(card: Pipeline, library: Library) -> None:
    expected = card(**CALL).images
    card.close()
    assert not any(context() for context in library.contexts)
    assert np.array_equal(card(**CALL).images, expected)


def test_a_check_tells_error_time_and_the_card_s_memory(
    folder: Path, library: Library, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = run(capsys, "check", folder, "--json")
    assert shown.status == 0
    weights = {name: entry.weight_bytes for name, entry in read_manifest(folder).components.items()}
    events = {event["name"]: event for event in shown.events()}
    assert set(events) == set(weights)
    for name, event in events.items():
        assert event["passed"]
        assert event["device"] == "host memory"
        assert event["recorded"] is None, "it was not measured on these files"
        assert event["seconds"] > 0
        assert weights[name] < event["device_bytes"]
    assert library.driver.closed
    assert "memory is the GPU's" in run(capsys, "check", folder).out
