"""Steered pictures against diffusers: the same weights, hints, starting latents and noise."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pocketxl.engine.pipeline import Pipeline

from ...fixtures.checkpoints import SCHEDULER
from ...fixtures.controlnets import edges
from ...fixtures.schedulers import make_scheduler
from ...tolerances import PICTURE_CHANGE, PICTURE_MEAN

Folders = Mapping[str, tuple[Path, Path]]
PROMPT, NEGATIVE = "a red cat", "a blue dog"
HEIGHT, WIDTH = 64, 96
LATENTS = np.random.default_rng(5).standard_normal((1, 4, HEIGHT // 8, WIDTH // 8), dtype=np.float32)
CASES: Mapping[str, Mapping[str, Any]] = {
    "whole": {},
    "scaled": {"controlnet_conditioning_scale": 0.4},
    "from and to": {"control_guidance_start": 0.2, "control_guidance_end": 0.7},
    "without guidance": {"guidance_scale": 1.0},
    "two evaluations a step": {"sampler": "heun"},
}
BOTH: Mapping[str, Any] = {
    "controlnet_conditioning_scale": [0.7, 0.3],
    "control_guidance_start": [0.0, 0.3],
    "control_guidance_end": [0.6, 1.0],
}


@pytest.fixture(scope="module")
def steered(tiny_engine: Path, tiny_controlnets: Folders) -> Iterator[Pipeline]:
    folders = {name: built for name, (_, built) in tiny_controlnets.items()}
    with Pipeline.load(tiny_engine, threads=1, controlnets=folders) as pipe:
        yield pipe


@pytest.fixture(scope="module")
def theirs(tiny_folders: Mapping[str, Path], tiny_controlnets: Folders) -> Callable[..., Any]:
    from diffusers import ControlNetModel, StableDiffusionXLControlNetPipeline

    torch.set_num_threads(1)
    nets = {name: ControlNetModel.from_pretrained(source) for name, (source, _) in tiny_controlnets.items()}

    def call(names: list[str], images: list[np.ndarray], *, sampler: str = "euler", **options: Any) -> Any:
        chosen = [nets[name] for name in names]
        pipe = StableDiffusionXLControlNetPipeline.from_pretrained(
            tiny_folders["base"], controlnet=chosen if len(chosen) > 1 else chosen[0], add_watermarker=False
        )
        pipe.set_progress_bar_config(disable=True)
        pipe.scheduler = make_scheduler(sampler, "default", dict(SCHEDULER))
        pictures = [Image.fromarray(image) for image in images]
        return pipe(image=pictures if len(pictures) > 1 else pictures[0], output_type="np", **options).images

    return call


def common(**options: Any) -> dict[str, Any]:
    return {
        "prompt": PROMPT,
        "negative_prompt": NEGATIVE,
        "num_inference_steps": 10,
        "guidance_scale": 5.0,
        "height": HEIGHT,
        "width": WIDTH,
        **options,
    }


def of_ours(pipe: Pipeline, image: Any, **options: Any) -> Any:
    more: dict[str, Any] = {"refiner": False, "seed": 1, "latents": LATENTS, "output_type": "np"}
    return pipe(control_image=image, **common(**options), **more).images


@pytest.mark.parametrize("case", CASES)
def test_one_is_that_of_diffusers(steered: Pipeline, theirs: Callable[..., Any], case: str) -> None:
    options, hint = dict(CASES[case]), edges(HEIGHT, WIDTH)
    ours = of_ours(steered, {"canny": hint}, **options)
    sampler = options.pop("sampler", "euler")
    other = theirs(["canny"], [hint], sampler=sampler, latents=torch.from_numpy(LATENTS), **common(**options))
    plain = of_ours(steered, None, sampler=sampler, **{k: v for k, v in options.items() if k == "guidance_scale"})
    assert float(np.abs(ours - other).mean()) <= PICTURE_MEAN
    assert float(np.abs(ours - plain).mean()) > PICTURE_CHANGE


def test_two_at_once_are_those_of_diffusers(steered: Pipeline, theirs: Callable[..., Any]) -> None:
    hints = [edges(HEIGHT, WIDTH), edges(HEIGHT, WIDTH, seed=9)]
    ours = of_ours(steered, hints, **BOTH)
    other = theirs(["canny", "depth"], hints, latents=torch.from_numpy(LATENTS), **common(**BOTH))
    assert float(np.abs(ours - other).mean()) <= PICTURE_MEAN


def test_a_hint_of_another_size_is_resized_as_diffusers_does_it(steered: Pipeline, theirs: Callable[..., Any]) -> None:
    hint = edges(50, 120)
    ours = of_ours(steered, {"canny": hint})
    other = theirs(["canny"], [hint], latents=torch.from_numpy(LATENTS), **common())
    assert float(np.abs(ours - other).mean()) <= PICTURE_MEAN


def test_a_lora_and_a_controlnet_together_are_those_of_diffusers(
    steered: Pipeline, tiny_folders: Mapping[str, Path], tiny_controlnets: Folders, tmp_path: Path
) -> None:
    """Pairs of the engine's own layers, in an open graph that takes residuals too."""
    from diffusers import ControlNetModel, StableDiffusionXLControlNetPipeline

    from ...fixtures.loras import ATTENTION, adapted, known

    hint = edges(HEIGHT, WIDTH)
    net = ControlNetModel.from_pretrained(tiny_controlnets["canny"][0])
    pipe = StableDiffusionXLControlNetPipeline.from_pretrained(
        tiny_folders["base"], controlnet=net, add_watermarker=False
    )
    pipe.set_progress_bar_config(disable=True)
    given = {"image": Image.fromarray(hint), "latents": torch.from_numpy(LATENTS), "output_type": "np"}
    with (
        adapted({"base/unet": (pipe.unet, ATTENTION)}, "style") as lora,
        known(steered, tmp_path, [lora]) as files,
    ):
        other = pipe(**given, **common()).images
        ours = of_ours(steered, {"canny": hint}, loras={files[0]: 1.0})
    alone = of_ours(steered, {"canny": hint})
    assert float(np.abs(ours - other).mean()) <= PICTURE_MEAN
    assert float(np.abs(ours - alone).mean()) > PICTURE_CHANGE
