"""Kept features with everything that adds to a U-Net, against DeepCache written out over diffusers' pipelines."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pocketxl.engine.pipeline import Pipeline

from ...fixtures.checkpoints import SCHEDULER, tiny_unet
from ...fixtures.controlnets import edges
from ...fixtures.deep_cache import deep_cached
from ...fixtures.ip_adapters import image_encoder, write_ip_adapter
from ...fixtures.loras import CONV, LINEAR, TIME, adapted, known
from ...fixtures.schedulers import make_scheduler
from ...tolerances import PICTURE_CHANGE, PICTURE_MEAN

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' schedulers

Folders = Mapping[str, tuple[Path, Path]]
SIDE, INTERVAL = 64, 3
LATENTS = np.random.default_rng(5).standard_normal((1, 4, SIDE // 8, SIDE // 8), dtype=np.float32)
COMMON: Mapping[str, Any] = {
    "prompt": "a red cat", "negative_prompt": "a blue dog", "num_inference_steps": 8, "guidance_scale": 5.0,
    "height": SIDE, "width": SIDE,
}  # fmt: skip
OURS: Mapping[str, Any] = {**COMMON, "refiner": False, "seed": 1, "latents": LATENTS, "output_type": "np"}
THEIRS: Mapping[str, Any] = {**COMMON, "latents": torch.from_numpy(LATENTS), "output_type": "np"}


@pytest.fixture(scope="module")
def adapter(tiny_folders: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An IP-Adapter's file, and the built folder."""
    from pocketxl.export.companions.ip_adapter import build_ip_adapter

    root = tmp_path_factory.mktemp("adapter")
    file, encoder = write_ip_adapter(root, tiny_unet("base"), plus=False)
    build_ip_adapter(file, root / "out", image_encoder=encoder, base=tiny_folders["base"], recipe="fp32")
    return file, root / "out"


@pytest.fixture(scope="module")
def both(tiny_engine: Path, tiny_controlnets: Folders, adapter: tuple[Path, Path]) -> Iterator[Pipeline]:
    folders = {"canny": tiny_controlnets["canny"][1]}
    with Pipeline.load(tiny_engine, threads=1, controlnets=folders, ip_adapter=adapter[1]) as pipe:
        yield pipe


def steered(tiny_folders: Mapping[str, Path], tiny_controlnets: Folders) -> Any:
    """diffusers with a ControlNet."""
    from diffusers import ControlNetModel, StableDiffusionXLControlNetPipeline

    torch.set_num_threads(1)
    net = ControlNetModel.from_pretrained(tiny_controlnets["canny"][0])
    pipe = StableDiffusionXLControlNetPipeline.from_pretrained(
        tiny_folders["base"], controlnet=net, add_watermarker=False
    )
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = make_scheduler("euler", "default", dict(SCHEDULER))
    return pipe


@pytest.mark.parametrize(
    ("interval", "whole"),
    [({}, 6), ({"control_guidance_start": 0.25, "control_guidance_end": 0.6}, 6 + 2 * 2)],
    ids=["all the way", "from and to"],
)
def test_a_controlnet_steers_the_outermost_level_at_every_evaluation(
    both: Pipeline,
    tiny_folders: Mapping[str, Path],
    tiny_controlnets: Folders,
    interval: dict[str, Any],
    whole: int,
) -> None:
    """Where it comes or goes between two whole evaluations, the next one is whole too: 2 and 5 beside 0, 3 and 6."""
    hint, pipe = edges(SIDE, SIDE), steered(tiny_folders, tiny_controlnets)
    with deep_cached(pipe.unet, INTERVAL) as cached:
        expected = pipe(image=Image.fromarray(hint), **THEIRS, **interval).images
    found = both(**OURS, **interval, control_image={"canny": hint}, deep_cache=INTERVAL).images
    assert float(np.abs(found - expected).mean()) <= PICTURE_MEAN
    assert cached.whole == whole
    assert float(np.abs(found - both(**OURS, deep_cache=INTERVAL).images).mean()) > PICTURE_CHANGE


def test_a_picture_as_a_prompt_stays_with_the_feature(
    both: Pipeline, tiny_folders: Mapping[str, Path], adapter: tuple[Path, Path]
) -> None:
    from diffusers import StableDiffusionXLPipeline
    from safetensors.torch import load_file
    from transformers import CLIPImageProcessor

    noise = np.random.default_rng(1).integers(256, size=(100, 140, 3)).astype(np.uint8)
    picture = Image.fromarray(noise)
    pipe = StableDiffusionXLPipeline.from_pretrained(tiny_folders["base"], add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    pipe.register_modules(image_encoder=image_encoder(), feature_extractor=processor)
    state: dict[str, dict[str, Any]] = {"image_proj": {}, "ip_adapter": {}}
    for name, tensor in load_file(adapter[0]).items():
        group, _, rest = name.partition(".")
        state[group][rest] = tensor
    pipe.load_ip_adapter(state, subfolder=None, weight_name=None, image_encoder_folder=None, low_cpu_mem_usage=False)
    pipe.set_ip_adapter_scale(0.6)
    with deep_cached(pipe.unet, INTERVAL):
        expected = pipe(ip_adapter_image=picture, **THEIRS).images
    found = both(**OURS, ip_adapter_image=picture, ip_adapter_scale=0.6, deep_cache=INTERVAL).images
    assert float(np.abs(found - expected).mean()) <= PICTURE_MEAN
    assert float(np.abs(found - both(**OURS, deep_cache=INTERVAL).images).mean()) > PICTURE_CHANGE


def test_a_lora_on_every_layer_and_a_controlnet_together(
    both: Pipeline, tiny_folders: Mapping[str, Path], tiny_controlnets: Folders, tmp_path: Path
) -> None:
    """The pairs of the outermost level's own layers are in both graphs."""
    hint, pipe = edges(SIDE, SIDE), steered(tiny_folders, tiny_controlnets)
    layers = (*LINEAR, *CONV, *TIME)
    with (
        adapted({"base/unet": (pipe.unet, layers)}, "style") as lora,
        known(both, tmp_path, [lora]) as files,
        deep_cached(pipe.unet, INTERVAL),
    ):
        expected = pipe(image=Image.fromarray(hint), **THEIRS).images
        given: dict[str, Any] = {"control_image": {"canny": hint}, "deep_cache": INTERVAL}
        found = both(**OURS, **given, loras={files[0]: 1.0}).images
        again = both(**OURS, **given, loras={files[0]: 1.0}).images
    assert float(np.abs(found - expected).mean()) <= PICTURE_MEAN
    assert float(np.abs(found - both(**OURS, **given).images).mean()) > PICTURE_CHANGE
    np.testing.assert_array_equal(found, again)
