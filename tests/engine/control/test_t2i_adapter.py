"""Pictures that T2I adapters steer against diffusers, together with everything else, and what is wrong with them."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pocketxl.engine.control.t2i_adapter import adapter_pixels
from pocketxl.engine.errors import IncompatibleError, RequestError, StorageError
from pocketxl.engine.memory.plan import LEAST
from pocketxl.engine.pipeline import Pipeline

from ...fixtures.checkpoints import SCHEDULER
from ...fixtures.controlnets import edges
from ...fixtures.deep_cache import deep_cached
from ...fixtures.schedulers import make_scheduler
from ...tolerances import PICTURE_CHANGE, PICTURE_MEAN

Folders = Mapping[str, tuple[Path, Path]]
HEIGHT, WIDTH = 64, 96
LATENTS = np.random.default_rng(5).standard_normal((1, 4, HEIGHT // 8, WIDTH // 8), dtype=np.float32)
HINT, OTHER = edges(HEIGHT, WIDTH), edges(HEIGHT, WIDTH, seed=9)
COMMON: Mapping[str, Any] = {
    "prompt": "a red cat",
    "negative_prompt": "a blue dog",
    "num_inference_steps": 6,
    "guidance_scale": 5.0,
    "height": HEIGHT,
    "width": WIDTH,
}
OURS: Mapping[str, Any] = {**COMMON, "refiner": False, "seed": 1, "latents": LATENTS, "output_type": "np"}


@pytest.fixture(scope="module")
def steered(tiny_engine: Path, tiny_t2i_adapters: Folders, tiny_controlnets: Folders) -> Iterator[Pipeline]:
    adapters = {name: built for name, (_, built) in tiny_t2i_adapters.items()}
    controlnets = {"canny": tiny_controlnets["canny"][1]}
    with Pipeline.load(tiny_engine, threads=1, controlnets=controlnets, t2i_adapters=adapters) as pipe:
        yield pipe


def opened(folders: Mapping[str, Path], sources: list[Path]) -> Any:
    """diffusers' pipeline with these adapters."""
    from diffusers import MultiAdapter, StableDiffusionXLAdapterPipeline, T2IAdapter

    torch.set_num_threads(1)
    adapters = [T2IAdapter.from_pretrained(source) for source in sources]
    pipe = StableDiffusionXLAdapterPipeline.from_pretrained(
        folders["base"], adapter=MultiAdapter(adapters) if len(adapters) > 1 else adapters[0], add_watermarker=False
    )
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = make_scheduler("euler", "default", dict(SCHEDULER))
    return pipe


@pytest.fixture(scope="module")
def theirs(tiny_folders: Mapping[str, Path], tiny_t2i_adapters: Folders) -> Callable[..., Any]:
    def call(pictures: Mapping[str, np.ndarray], **options: Any) -> Any:
        pipe = opened(tiny_folders, [tiny_t2i_adapters[name][0] for name in pictures])
        images = [Image.fromarray(picture) for picture in pictures.values()]
        given = {**COMMON, "latents": torch.from_numpy(LATENTS), "output_type": "np", **options}
        return pipe(image=images if len(images) > 1 else images[0], **given).images

    return call


GREY = np.asarray(Image.fromarray(HINT).convert("L"))
CASES: Mapping[str, tuple[Mapping[str, np.ndarray], Mapping[str, Any]]] = {
    "whole": ({"sketch": HINT}, {}),
    "scaled, for a share of the steps": (
        {"sketch": HINT},
        {"adapter_conditioning_scale": 0.4, "adapter_conditioning_factor": 0.6},
    ),
    "without guidance": ({"sketch": HINT}, {"guidance_scale": 1.0}),
    "of grey pictures": ({"grey": GREY}, {}),
    "of another size": ({"sketch": edges(50, 120)}, {}),
    "two at once": ({"sketch": HINT, "depth": OTHER}, {"adapter_conditioning_scale": [0.7, 0.3]}),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_that_of_diffusers(steered: Pipeline, theirs: Callable[..., Any], case: str) -> None:
    pictures, options = CASES[case]
    named = dict(options)
    if isinstance(scales := named.get("adapter_conditioning_scale"), list):
        named["adapter_conditioning_scale"] = dict(zip(pictures, scales, strict=True))
    ours = steered(**{**OURS, **named}, adapter_image=pictures).images
    rest = {key: value for key, value in options.items() if not key.startswith("adapter")}
    plain = steered(**{**OURS, **rest}).images
    assert float(np.abs(ours - theirs(pictures, **options)).mean()) <= PICTURE_MEAN
    assert float(np.abs(ours - plain).mean()) > PICTURE_CHANGE


def test_a_lora_and_an_adapter_together_are_those_of_diffusers(
    steered: Pipeline, tiny_folders: Mapping[str, Path], tiny_t2i_adapters: Folders, tmp_path: Path
) -> None:
    """Pairs of every layer, also of those that features are added behind."""
    from ...fixtures.loras import CONV, LINEAR, adapted, known

    pipe = opened(tiny_folders, [tiny_t2i_adapters["sketch"][0]])
    given = {"image": Image.fromarray(HINT), "latents": torch.from_numpy(LATENTS), "output_type": "np"}
    with (
        adapted({"base/unet": (pipe.unet, (*LINEAR, *CONV))}, "style") as lora,
        known(steered, tmp_path, [lora]) as files,
    ):
        other = pipe(**given, **COMMON).images
        ours = steered(**OURS, adapter_image={"sketch": HINT}, loras={files[0]: 1.0}).images
    alone = steered(**OURS, adapter_image={"sketch": HINT}).images
    assert float(np.abs(ours - other).mean()) <= PICTURE_MEAN
    assert float(np.abs(ours - alone).mean()) > PICTURE_CHANGE


def test_a_controlnet_and_an_adapter_act_together(steered: Pipeline) -> None:
    ways: tuple[dict[str, Any], ...] = ({}, {"control_image": HINT}, {"adapter_image": {"sketch": OTHER}})
    pictures = [steered(**OURS, **options).images for options in (*ways, {**ways[1], **ways[2]})]
    for i, one in enumerate(pictures):
        for other in pictures[i + 1 :]:
            assert np.abs(one - other).mean() > PICTURE_CHANGE


def test_sizes_that_are_no_multiple_of_its_squares(steered: Pipeline) -> None:
    """diffusers cannot: the last pixels are repeated, so that features have the U-Net's own sizes."""
    options = {**OURS, "height": 72, "width": 104, "latents": None}
    hint: dict[str, Any] = {"adapter_image": {"sketch": edges(72, 104)}}
    assert np.abs(steered(**options).images - steered(**options, **hint).images).mean() > PICTURE_CHANGE
    assert adapter_pixels(edges(72, 104), 3).shape == (1, 3, 80, 112)


def test_in_a_second_pass_it_has_that_pass_size(steered: Pipeline) -> None:
    options = {**OURS, "latents": None, "num_inference_steps": 2, "hires_scale": 1.5}
    steering: dict[str, Any] = {"adapter_image": {"sketch": HINT}}
    assert np.abs(steered(**options).images - steered(**options, **steering).images).mean() > PICTURE_CHANGE


def test_the_plan_has_it_and_a_call_without_is_planned_and_made_as_before(steered: Pipeline, pipe: Pipeline) -> None:
    plan = steered.plan(**OURS, adapter_image={"sketch": HINT}, budget=LEAST)
    phases = {phase.name: index for index, phase in enumerate(plan.phases)}
    assert phases["features sketch"] < phases["condition base"] < phases["denoise base"]
    assert plan.resident(phases["features sketch"]) == ("t2i_adapters/sketch/encoder",)
    before, held = steered.plan(**OURS, budget=LEAST).phases, plan.phases[phases["denoise base"]].held_bytes
    assert held > next(phase.held_bytes for phase in before if phase.name == "denoise base")
    assert steered.plan(**OURS).table() == pipe.plan(**OURS).table()
    assert (steered(**OURS).images == pipe(**OURS).images).all()


def test_on_an_engine_in_8_bits_it_does_what_it_does_on_one_in_floats(
    tiny_engine: Path, tiny_int8_engine: Path, tiny_t2i_adapters: Folders
) -> None:
    with_it, without = {}, {}
    for name, folder in (("fp32", tiny_engine), ("int8", tiny_int8_engine)):
        adapters = {"sketch": tiny_t2i_adapters["sketch"][1]}
        with Pipeline.load(folder, threads=1, t2i_adapters=adapters) as pipe:
            with_it[name] = pipe(**OURS, adapter_image=HINT).images
            without[name] = pipe(**OURS).images
    effect = np.square(with_it["fp32"] - without["fp32"]).mean()
    error, of_8_bits = (np.square(found["int8"] - found["fp32"]).mean() for found in (with_it, without))
    assert error < max(2 * of_8_bits, effect / 10)


def test_an_engine_that_has_no_place_for_it_says_so_only_when_asked(
    tiny_engine: Path, tiny_t2i_adapters: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was built before there were T2I adapters."""
    from dataclasses import replace

    from pocketxl.engine.runners.ort import OrtRunner

    whole = OrtRunner.openings.fget  # type: ignore[attr-defined]

    def older(runner: OrtRunner) -> Any:
        found = whole(runner)
        graphs = [g for g in found.graphs if not any(t.name.startswith("adapter") for t in g.inputs)] if found else []
        return found and replace(found, graphs=tuple(graphs))

    monkeypatch.setattr(OrtRunner, "openings", property(older))
    adapters = {"sketch": tiny_t2i_adapters["sketch"][1]}
    with Pipeline.load(tiny_engine, threads=1, t2i_adapters=adapters) as pipe:
        with pytest.raises(IncompatibleError, match=r"no graph of base/unet that takes .*; build it again"):
            pipe(**OURS, adapter_image=HINT)
        assert pipe(**{**OURS, "num_inference_steps": 1}).steps == 1


WRONG: Mapping[str, tuple[Mapping[str, Any], type[Exception], str]] = {
    "no such name": ({"adapter_image": {"pose": HINT}}, RequestError, "'pose'; loaded are sketch, depth, grey"),
    "one picture for three": ({"adapter_image": HINT}, RequestError, "3 T2I adapters are loaded"),
    "two for three": ({"adapter_image": [HINT] * 2}, RequestError, "2 values for 3 T2I adapters"),
    "a scale alone": ({"adapter_conditioning_scale": 0.5}, RequestError, "without adapter_image"),
    "a scale beyond": (
        {"adapter_image": {"sketch": HINT}, "adapter_conditioning_scale": 11},
        RequestError,
        "adapter_conditioning_scale is 11; it must be 0 to 10",
    ),
    "a factor beyond": (
        {"adapter_image": {"sketch": HINT}, "adapter_conditioning_factor": 1.5},
        RequestError,
        "adapter_conditioning_factor is 1.5; it must be 0 to 1",
    ),
    "an unknown preprocessor": (
        {"adapter_image": {"sketch": HINT}, "adapter_preprocess": "hed"},
        RequestError,
        "adapter_preprocess is 'hed'; choose canny or None",
    ),
    "no picture": ({"adapter_image": {"sketch": 7}}, RequestError, "a path, a PIL picture or an array"),
    "no file": ({"adapter_image": {"sketch": "nowhere.png"}}, StorageError, "nowhere.png cannot be read"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_argument(steered: Pipeline, case: str) -> None:
    options, kind, words = WRONG[case]
    with pytest.raises(kind) as caught:
        steered("a red cat", **options)
    assert words in str(caught.value)


def test_folders_of_another_kind(
    pipe: Pipeline, tiny_engine: Path, tiny_t2i_adapters: Folders, tiny_controlnets: Folders
) -> None:
    built = tiny_t2i_adapters["sketch"][1]
    with pytest.raises(RequestError, match="no T2I adapter is loaded"):
        pipe("a red cat", adapter_image=HINT)
    with pytest.raises(IncompatibleError, match="is no T2I adapter; build one with"):
        Pipeline.load(tiny_engine, t2i_adapters={"a": tiny_engine})
    with pytest.raises(IncompatibleError, match="is no T2I adapter, but a ControlNet; build one with"):
        Pipeline.load(tiny_engine, t2i_adapters={"a": tiny_controlnets["canny"][1]})
    with pytest.raises(IncompatibleError, match="is no ControlNet, but a T2I adapter; build one with"):
        Pipeline.load(tiny_engine, controlnets={"a": built})
    with pytest.raises(IncompatibleError, match="a T2I adapter, which makes no pictures alone"):
        Pipeline.load(built)
    with pytest.raises(IncompatibleError, match="does not fit this engine: it adds 64 channels at 1/16"):
        Pipeline.load(t2i_adapters={"a": built})
    with pytest.raises(RequestError, match=r"a T2I adapter is called '\.\./x'"):
        Pipeline.load(tiny_engine, t2i_adapters={"../x": built})


def test_deep_features_are_kept_while_adapters_stay_the_same(
    steered: Pipeline, tiny_folders: Mapping[str, Path], tiny_t2i_adapters: Folders
) -> None:
    """Against DeepCache written out over diffusers: where the adapter stops to count, the next evaluation is whole."""
    options: Mapping[str, Any] = {"adapter_conditioning_factor": 0.7}
    pipe = opened(tiny_folders, [tiny_t2i_adapters["sketch"][0]])
    with deep_cached(pipe.unet, 3) as cached:
        latents = torch.from_numpy(LATENTS)
        theirs = pipe(image=Image.fromarray(HINT), **COMMON, **options, latents=latents, output_type="np").images
    found = steered(**OURS, **options, adapter_image={"sketch": HINT}, deep_cache=3).images
    assert (cached.whole, cached.shallow) == (6, 6), "evaluations 0, 3 and 4, for two rows"
    assert float(np.abs(found - theirs).mean()) <= PICTURE_MEAN
    plain = steered(**OURS, **options, adapter_image={"sketch": HINT}).images
    for other in (plain, steered(**OURS, deep_cache=3).images):
        assert float(np.abs(found - other).mean()) > PICTURE_CHANGE
