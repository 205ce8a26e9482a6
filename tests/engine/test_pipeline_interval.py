"""How many rows a step has: two under guidance, one without, and one where guidance rests."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pocketxl.engine.errors import RequestError
from pocketxl.engine.pipeline import Pipeline
from pocketxl.engine.runners.base import Runner

from ..fixtures.cuda_on_host import HostDriver
from ..fixtures.rtx_on_host import install, rtx_engine
from ..tolerances import FLOAT16_EDGE_PICTURE, PICTURE_CHANGE, PICTURE_MEAN

if TYPE_CHECKING:
    from ..fixtures.experts import Experts

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' schedulers

CALL: dict[str, Any] = {
    "prompt": "a red cat", "negative_prompt": "a dog", "seed": [3], "height": 64, "width": 64, "output_type": "np",
    "num_inference_steps": 10, "denoising_end": 0.5, "refiner": True,
}  # fmt: skip
ALONE = CALL | {"refiner": False, "denoising_end": None}


def counting(monkeypatch: pytest.MonkeyPatch, runner: Runner) -> list[int]:
    """The rows of every call of a component."""
    rows: list[int] = []
    call: Callable[..., Any] = type(runner).__call__

    def counted(self: Any, inputs: Any, *args: Any, **keywords: Any) -> Any:
        if self is runner:
            rows.append(len(next(iter(inputs.values()))))
        return call(self, inputs, *args, **keywords)

    monkeypatch.setattr(type(runner), "__call__", counted)
    return rows


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_without_guidance_a_step_is_one_row_for_base_and_refiner(
    pipe: Pipeline, monkeypatch: pytest.MonkeyPatch, scale: float
) -> None:
    base, refiner = (counting(monkeypatch, pipe.runners[f"{kind}/unet"]) for kind in ("base", "refiner"))
    pipe(**CALL | {"guidance_scale": scale})
    assert (sum(base), sum(refiner)) == (5, 5)


def test_a_preset_of_few_steps_is_as_many_rows(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    base, refiner = (counting(monkeypatch, pipe.runners[f"{kind}/unet"]) for kind in ("base", "refiner"))
    pipe("a red cat", preset="lightning-4", seed=3, height=64, width=64)
    assert (sum(base), sum(refiner)) == (4, 0)


@pytest.mark.parametrize(
    ("interval", "rows"),
    [
        ({}, (10, 10)),
        ({"guidance_end": 0.3}, (8, 5)),
        ({"guidance_end": 0.8}, (10, 8)),
        ({"guidance_start": 0.2}, (8, 10)),
        ({"guidance_start": 0.2, "guidance_end": 0.8}, (8, 8)),
        ({"guidance_start": 0.5}, (5, 10)),
    ],
    ids=str,
)
def test_outside_the_interval_the_prompt_stands_alone(
    pipe: Pipeline, monkeypatch: pytest.MonkeyPatch, interval: dict[str, float], rows: tuple[int, int]
) -> None:
    base, refiner = (counting(monkeypatch, pipe.runners[f"{kind}/unet"]) for kind in ("base", "refiner"))
    pipe(**CALL | interval)
    assert (sum(base), sum(refiner)) == rows


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_an_early_end_is_diffusers_dynamic_guidance(pipe: Pipeline, experts: "Experts", share: float) -> None:
    """diffusers lets a callback turn guidance off for the steps to come, and drop the negative's row."""

    def turn_off(pipeline: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if index + 1 == round(10 * share):
            pipeline._guidance_scale = 1.0
            return {name: tensor.chunk(2)[-1] for name, tensor in tensors.items()}
        return tensors

    inputs = ["prompt_embeds", "add_text_embeds", "add_time_ids"]
    expected = experts(**ALONE, callback_on_step_end=turn_off, callback_on_step_end_tensor_inputs=inputs)
    found = pipe(**ALONE, guidance_end=share).images
    assert np.abs(found - expected).mean() <= PICTURE_MEAN
    assert np.abs(found - pipe(**ALONE).images).mean() > PICTURE_CHANGE


def test_a_late_start_goes_on_from_where_no_guidance_led(pipe: Pipeline) -> None:
    unguided: list[np.ndarray] = []

    def note(_: Any, index: int, timestep: float, tensors: dict[str, Any]) -> dict[str, Any]:
        unguided.append(tensors["latents"].copy())
        return {}

    def replace(_: Any, index: int, timestep: float, tensors: dict[str, Any]) -> dict[str, Any]:
        return {"latents": unguided[index]} if index < 4 else {}

    pipe(**ALONE, guidance_scale=1.0, callback_on_step_end=note)
    expected = pipe(**ALONE, callback_on_step_end=replace).images
    found = pipe(**ALONE, guidance_start=0.4).images
    np.testing.assert_array_equal(found, expected)


def test_the_whole_interval_is_the_plain_call_to_the_bit(pipe: Pipeline) -> None:
    np.testing.assert_array_equal(pipe(**CALL, guidance_start=0, guidance_end=1.0).images, pipe(**CALL).images)


def test_it_goes_with_prompts_that_change_on_their_way(pipe: Pipeline) -> None:
    """To the bit: a text that only stands where guidance rests is conditioned without the negative."""
    late = ALONE | {"prompt": "a [red:blue:4] cat", "guidance_end": 0.4}
    early = ALONE | {"prompt": "a red cat", "guidance_end": 0.4}
    assert np.abs(pipe(**late).images - pipe(**early).images).mean() > PICTURE_CHANGE


@pytest.fixture
def card(
    tiny_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Pipeline, Any, HostDriver]]:
    """A pipeline whose U-Net takes both sides of the guidance in one call."""
    folder, driver = rtx_engine(tiny_engine, tmp_path), HostDriver(total=8 << 30)
    library = install(driver, monkeypatch)
    with Pipeline.load(folder) as pipeline:
        assert pipeline.runners["base/unet"].rows == 2
        yield pipeline, library, driver


def test_on_a_card_both_sides_are_one_call_and_the_prompt_alone_a_smaller_one(
    card: tuple[Pipeline, Any, HostDriver], pipe: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, _, _ = card
    rows = counting(monkeypatch, pipeline.runners["base/unet"])
    found = pipeline(**ALONE, guidance_end=0.6).images
    assert rows == [2] * 6 + [1] * 4
    assert np.abs(found - pipe(**ALONE, guidance_end=0.6).images).mean() < FLOAT16_EDGE_PICTURE


def test_on_a_card_the_plan_counts_the_prompt_twice(card: tuple[Pipeline, Any, HostDriver], pipe: Pipeline) -> None:
    def held(pipeline: Pipeline, **options: Any) -> int:
        return next(p.constant_bytes for p in pipeline.plan(**ALONE, **options).phases if p.name == "denoise base")

    assert held(card[0], guidance_end=0.6) * 2 == held(card[0]) * 3
    assert held(pipe, guidance_end=0.6) == held(pipe), "the negative's keys and values are simply not used"
    assert held(card[0], guidance_scale=1.0, guidance_end=0.6) == held(card[0], guidance_scale=1.0)


@pytest.mark.parametrize(
    "bad",
    [{"guidance_start": 0.5, "guidance_end": 0.5}, {"guidance_start": 0.9, "guidance_end": 0.1}, {"guidance_start": 1},
     {"guidance_end": 0}, {"guidance_start": -0.1}, {"guidance_end": 1.1}, {"guidance_end": None}],
    ids=str,
)  # fmt: skip
def test_an_interval_that_is_none_is_refused(pipe: Pipeline, bad: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="guidance_"):
        pipe.request(**ALONE, **bad)
