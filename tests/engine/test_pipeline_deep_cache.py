"""Deep features that are kept, against DeepCache written out over diffusers' U-Nets."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pocketxl.engine.errors import IncompatibleError, MemoryBudgetError, RequestError
from pocketxl.engine.pipeline import Pipeline
from pocketxl.engine.runners.cached import Caches
from pocketxl.engine.runners.ort_open import OrtOpenRunner

from ..fixtures.deep_cache import DeepCached, deep_cached
from ..tolerances import PICTURE_CHANGE, PICTURE_MEAN

if TYPE_CHECKING:
    from ..fixtures.experts import Experts

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' schedulers

CALL: dict[str, Any] = {
    "prompt": "a red cat", "negative_prompt": "a dog", "seed": [3], "height": 64, "width": 64, "output_type": "np",
    "num_inference_steps": 8,
}  # fmt: skip
BOTH = CALL | {"denoising_end": 0.5, "refiner": True}
ALONE = CALL | {"refiner": False, "denoising_end": None}


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """How often each graph runs."""
    calls: dict[str, int] = {}
    run = OrtOpenRunner.__call__

    def noted(self: OrtOpenRunner, *args: Any, **keywords: Any) -> Any:
        calls[self.graph.file] = calls.get(self.graph.file, 0) + 1
        return run(self, *args, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(OrtOpenRunner, "__call__", noted)
        yield calls


def theirs(experts: "Experts", interval: int, **options: Any) -> tuple[np.ndarray, DeepCached]:
    """diffusers' pipelines with a cache in each U-Net, and the base's."""
    with deep_cached(experts.base.unet, interval) as base, deep_cached(experts.refiner.unet, interval):
        return experts(**options), base


def apart(found: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(found - other).mean())


def test_the_oracle_with_interval_1_is_diffusers_own_forward(experts: "Experts") -> None:
    written, _ = theirs(experts, 1, **BOTH)
    assert apart(written, experts(**BOTH)) <= PICTURE_MEAN


@pytest.mark.parametrize("interval", [2, 3, 5, 100])
def test_base_and_refiner_are_those_of_the_paper(
    pipe: Pipeline, experts: "Experts", monkeypatch: pytest.MonkeyPatch, interval: int
) -> None:
    """The refiner's first evaluation is whole, wherever the base stopped."""
    expected, _ = theirs(experts, interval, **BOTH)
    with counted(monkeypatch) as calls:
        found = pipe(**BOTH, deep_cache=interval).images
    assert apart(found, expected) <= PICTURE_MEAN
    assert apart(found, pipe(**BOTH).images) > PICTURE_CHANGE
    whole = 2 * 2 * -(-4 // interval)  # rows, models, evaluations of each
    assert calls == {"cached.onnx": whole, "shallow.onnx": 2 * 2 * 4 - whole}


@pytest.mark.parametrize("sampler", ["heun", "dpmpp_sde", "dpmpp_2m"])
def test_evaluations_are_counted_not_steps(pipe: Pipeline, experts: "Experts", sampler: str) -> None:
    expected, cached = theirs(experts, 2, **ALONE, sampler=sampler)
    found = pipe(**ALONE, sampler=sampler, deep_cache=2).images
    evaluations = 8 if sampler == "dpmpp_2m" else 15
    assert (cached.calls, cached.whole) == (evaluations, 2 * -(-evaluations // 2))
    assert apart(found, expected) <= PICTURE_MEAN


def test_interval_1_is_the_plain_call_to_the_bit(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    with counted(monkeypatch) as calls:
        np.testing.assert_array_equal(pipe(**BOTH, deep_cache=1).images, pipe(**BOTH).images)
    assert not calls


def test_an_interval_of_one_evaluation_in_each_part_is_the_plain_call_to_the_bit(pipe: Pipeline) -> None:
    """The whole graph that gives its feature too computes what the plain one does."""
    once = CALL | {"num_inference_steps": 1, "refiner": False, "denoising_end": None}
    np.testing.assert_array_equal(pipe(**once, deep_cache=4).images, pipe(**once).images)


def test_a_picture_depends_on_its_own_seed_alone(pipe: Pipeline) -> None:
    """Each picture and each side of guidance has its own feature."""
    batch = pipe(**BOTH | {"seed": [3, 4], "num_images_per_prompt": 2}, deep_cache=3).images
    for index, seed in enumerate((3, 4)):
        np.testing.assert_array_equal(batch[index], pipe(**BOTH | {"seed": [seed]}, deep_cache=3).images[0])
    prompts = pipe(**BOTH | {"prompt": ["a red cat", "a blue sky"], "seed": [3, 4]}, deep_cache=3).images
    np.testing.assert_array_equal(prompts[0], batch[0])


def test_where_guidance_ends_the_prompt_keeps_its_feature(pipe: Pipeline, experts: "Experts") -> None:
    def turn_off(pipeline: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if index + 1 == 4:
            pipeline._guidance_scale = 1.0
            return {name: tensor.chunk(2)[-1] for name, tensor in tensors.items()}
        return tensors

    inputs = ["prompt_embeds", "add_text_embeds", "add_time_ids"]
    expected, cached = theirs(
        experts, 3, **ALONE, callback_on_step_end=turn_off, callback_on_step_end_tensor_inputs=inputs
    )
    assert apart(pipe(**ALONE, guidance_end=0.5, deep_cache=3).images, expected) <= PICTURE_MEAN
    assert (cached.whole, cached.shallow) == (2 * 2 + 1, 2 * 2 + 3)  # evaluations 0, 3 and 6


def test_where_guidance_begins_the_negative_is_asked_as_a_whole(
    pipe: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    with counted(monkeypatch) as calls:
        pipe(**ALONE, guidance_start=0.5, deep_cache=3)  # from evaluation 4 on
    assert calls == {"cached.onnx": 3 + 2, "shallow.onnx": 5 + 2}


def test_calls_of_two_rows_keep_both_sides_as_one(
    tiny_engine: Path, pipe: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on GPUs; where guidance ends, the prompt's row alone is another call, which begins with a whole one."""
    from pocketxl.engine.runners.ort import OrtRunner

    one_row = pipe(**ALONE, deep_cache=3).images
    monkeypatch.setattr(OrtRunner, "rows", 2)
    with Pipeline.load(tiny_engine, threads=1) as two_rows:
        assert apart(two_rows(**ALONE, deep_cache=3).images, one_row) <= PICTURE_MEAN
        with counted(monkeypatch) as calls:
            two_rows(**ALONE, guidance_end=0.5, deep_cache=3)
    assert calls == {"cached.onnx": 4, "shallow.onnx": 4}  # evaluations 0, 3, 4 and 6


def test_where_the_text_changes_its_side_is_asked_as_a_whole(
    pipe: Pipeline, experts: "Experts", monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = experts.base.encode_prompt("a blue cat", negative_prompt="a dog")

    def turn(pipeline: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if index + 1 == 4:
            embeds, negative, pooled, negative_pooled = changed
            tensors["prompt_embeds"] = tensors["prompt_embeds"].new_tensor(
                np.concatenate([negative.numpy(), embeds.numpy()])
            )
            tensors["add_text_embeds"] = tensors["add_text_embeds"].new_tensor(
                np.concatenate([negative_pooled.numpy(), pooled.numpy()])
            )
        return tensors

    inputs = ["prompt_embeds", "add_text_embeds"]
    expected, cached = theirs(experts, 3, **ALONE, callback_on_step_end=turn, callback_on_step_end_tensor_inputs=inputs)
    options = ALONE | {"prompt": "a [red:blue:4] cat"}
    with counted(monkeypatch) as calls:
        found = pipe(**options, deep_cache=3).images
    assert apart(found, expected) <= PICTURE_MEAN
    assert calls == {"cached.onnx": 3 * 2 + 1, "shallow.onnx": 5 * 2 - 1}
    assert (cached.whole, cached.shallow) == (7, 9)


def test_latents_that_a_callback_changes_are_met_by_the_whole(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(_: Any, index: int, timestep: float, arrays: dict[str, Any]) -> dict[str, Any]:
        return {"latents": arrays["latents"] + (0.1 if index == 3 else 0.0)}

    def same(_: Any, index: int, timestep: float, arrays: dict[str, Any]) -> dict[str, Any]:
        return arrays

    with counted(monkeypatch) as calls:
        pipe(**ALONE, deep_cache=3, callback_on_step_end=change)
    assert calls == {"cached.onnx": 4 * 2, "shallow.onnx": 4 * 2}  # evaluations 0, 3, 4 and 6
    with counted(monkeypatch) as calls:
        found = pipe(**ALONE, deep_cache=3, callback_on_step_end=same).images
    assert calls == {"cached.onnx": 3 * 2, "shallow.onnx": 5 * 2}
    np.testing.assert_array_equal(found, pipe(**ALONE, deep_cache=3).images)


def test_a_mask_and_a_second_pass_go_with_it(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies under a mask is brought back after every step, and that drops nothing."""
    picture, mask = np.full((64, 64, 3), 0.5, np.float32), np.zeros((64, 64), np.float32)
    mask[:32] = 1
    with counted(monkeypatch) as calls:
        pipe(**ALONE, deep_cache=4, image=picture, mask_image=mask)
    assert calls == {"cached.onnx": 2 * 2, "shallow.onnx": 5 * 2}
    with counted(monkeypatch) as calls:
        pipe(**ALONE, deep_cache=4, hires_scale=1.5, hires_strength=0.5)
    assert calls == {"cached.onnx": (2 + 1) * 2, "shallow.onnx": (6 + 3) * 2}


def test_latents_of_odd_sizes(pipe: Pipeline, experts: "Experts") -> None:
    odd = ALONE | {"height": 72, "width": 104}
    expected, _ = theirs(experts, 2, **odd)
    assert apart(pipe(**odd, deep_cache=2).images, expected) <= PICTURE_MEAN


@pytest.mark.parametrize("bad", [0, -1, 1001, 2.0, True, None, "3"])
def test_an_interval_that_is_none_is_refused(pipe: Pipeline, bad: Any) -> None:
    with pytest.raises(RequestError, match="deep_cache"):
        pipe.request(**ALONE, deep_cache=bad)


def test_an_engine_without_such_graphs_says_so_when_it_is_asked(
    tiny_engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from pocketxl.engine.runners.adapted import OfEntry
    from pocketxl.engine.runners.ort import OrtRunner

    own = vars(OfEntry)["openings"].fget
    monkeypatch.setattr(OrtRunner, "openings", property(lambda self: replace(own(self), cached=())))
    with Pipeline.load(tiny_engine, threads=1) as old:
        with pytest.raises(IncompatibleError, match=r"base/unet that keeps deep features.*build it again"):
            old(**ALONE, deep_cache=2)
        old(**ALONE | {"num_inference_steps": 1})


def test_int8_keeps_what_it_computes_in_8_bits(tiny_int8_engine: Path) -> None:
    once = ALONE | {"num_inference_steps": 1}
    with Pipeline.load(tiny_int8_engine, threads=1) as pipe:
        np.testing.assert_array_equal(pipe(**once, deep_cache=2).images, pipe(**once).images)
        near, far = (pipe(**ALONE, deep_cache=interval).images for interval in (2, 8))
        plain = pipe(**ALONE).images
        assert PICTURE_CHANGE < apart(near, plain) < apart(far, plain)


def test_the_plan_counts_features_and_both_graphs(pipe: Pipeline) -> None:
    def phase(**options: Any) -> Mapping[str, int]:
        plan = pipe.plan(**ALONE | options)
        index = next(i for i, one in enumerate(plan.phases) if one.name == "denoise base")
        footprint = plan.footprints["base/unet"]
        return {"held": plan.phases[index].held_bytes, "weights": footprint.weights, "working": footprint.working}

    plain, kept = phase(), phase(deep_cache=2)
    runner = pipe.runners["base/unet"]
    assert isinstance(runner, Caches)
    assert runner.openings is not None
    graphs = runner.openings.cached[0]
    channels = int(graphs.feature.shape[1])
    assert kept["held"] - plain["held"] == 4 * (2 + 1) * channels * 8 * 8
    four = (
        phase(seed=[1, 2, 3, 4], num_images_per_prompt=4),
        phase(seed=[1, 2, 3, 4], num_images_per_prompt=4, deep_cache=2),
    )
    assert four[1]["held"] - four[0]["held"] == 4 * (4 * 2 + 1) * channels * 8 * 8
    assert kept["weights"] - plain["weights"] == int(1.04 * graphs.shallow.weight_bytes)
    assert kept["working"] > plain["working"]


def test_a_budget_that_asks_for_streaming_says_what_to_leave_out(pipe: Pipeline) -> None:
    with pytest.raises(MemoryBudgetError, match="leave deep_cache out"):
        pipe.plan(**ALONE, deep_cache=2, budget=100 << 20)


def test_settings_carry_it(pipe: Pipeline, tmp_path: Path) -> None:
    from pocketxl.engine.picture.files import read_settings
    from pocketxl.engine.picture.parameters import keywords

    options = ALONE | {"output_type": "pil", "num_inference_steps": 2}
    pipe(**options, deep_cache=2).save(tmp_path / "kept.png")
    settings = read_settings(tmp_path / "kept.png")
    assert settings["Deep cache"] == "2"
    assert keywords(settings)["deep_cache"] == 2
    pipe(**options).save(tmp_path / "plain.png")
    assert "Deep cache" not in read_settings(tmp_path / "plain.png")
