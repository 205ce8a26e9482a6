"""Pictures as prompts against diffusers, together with everything else, and what is wrong with them."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pocketxl.engine.errors import IncompatibleError, RequestError, StorageError
from pocketxl.engine.memory.plan import LEAST
from pocketxl.engine.pipeline import Pipeline
from pocketxl.export.companions.ip_adapter import build_ip_adapter

from ...fixtures.checkpoints import tiny_unet
from ...fixtures.controlnets import edges
from ...fixtures.ip_adapters import image_encoder, write_ip_adapter
from ...tolerances import PICTURE_CHANGE, PICTURE_MEAN

Folders = Mapping[str, tuple[Path, Path]]
LATENTS = np.random.default_rng(5).standard_normal((1, 4, 8, 8), dtype=np.float32)
OPTIONS: Mapping[str, Any] = {
    "prompt": "a red cat",
    "negative_prompt": "a blue dog",
    "num_inference_steps": 6,
    "width": 64,
    "height": 64,
    "guidance_scale": 5.0,
}
OURS: Mapping[str, Any] = {**OPTIONS, "seed": 1, "refiner": False, "output_type": "np"}


def photo(seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(256, size=(5, 7, 3)).astype(np.uint8)
    return Image.fromarray(noise).resize((140, 100), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def adapters(tiny_folders: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """Kind → its file and the built folder."""
    made = {}
    for kind in ("plain", "plus"):
        root = tmp_path_factory.mktemp(kind)
        file, encoder = write_ip_adapter(root, tiny_unet("base"), plus=kind == "plus")
        build_ip_adapter(file, root / "out", image_encoder=encoder, base=tiny_folders["base"], recipe="fp32")
        made[kind] = (file, root / "out")
    return made


@pytest.fixture(scope="module")
def theirs(tiny_folders: Mapping[str, Path], adapters: Mapping[str, Any]) -> Callable[..., Any]:
    from diffusers import StableDiffusionXLPipeline
    from safetensors.torch import load_file
    from transformers import CLIPImageProcessor

    def call(kind: str, picture: Any, scale: float, **options: Any) -> Any:
        torch.set_num_threads(1)
        pipe = StableDiffusionXLPipeline.from_pretrained(tiny_folders["base"], add_watermarker=False)
        pipe.set_progress_bar_config(disable=True)
        processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
        pipe.register_modules(image_encoder=image_encoder(), feature_extractor=processor)
        state: dict[str, dict[str, Any]] = {"image_proj": {}, "ip_adapter": {}}
        for name, tensor in load_file(adapters[kind][0]).items():
            group, _, rest = name.partition(".")
            state[group][rest] = tensor
        pipe.load_ip_adapter(
            state, subfolder=None, weight_name=None, image_encoder_folder=None, low_cpu_mem_usage=False
        )
        pipe.set_ip_adapter_scale(scale)
        given = [picture] if isinstance(picture, list) else picture
        more = {"latents": torch.from_numpy(LATENTS), "output_type": "np"}
        return pipe(ip_adapter_image=given, **{**OPTIONS, **options}, **more).images

    return call


@pytest.fixture(scope="module")
def pictured(tiny_engine: Path, adapters: Mapping[str, Any]) -> Iterator[Pipeline]:
    with Pipeline.load(tiny_engine, threads=1, ip_adapter=adapters["plus"][1]) as pipe:
        yield pipe


CASES: Mapping[str, tuple[str, int, float, Mapping[str, Any]]] = {
    "plain": ("plain", 1, 1.0, {}),
    "plus": ("plus", 1, 0.6, {}),
    "two pictures": ("plus", 2, 0.6, {}),
    "without guidance": ("plain", 1, 0.6, {"guidance_scale": 1.0}),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_that_of_diffusers(
    tiny_engine: Path, adapters: Mapping[str, Any], theirs: Callable[..., Any], case: str
) -> None:
    kind, count, scale, options = CASES[case]
    picture = photo(1) if count == 1 else [photo(i) for i in range(count)]
    with Pipeline.load(tiny_engine, threads=1, ip_adapter=adapters[kind][1]) as pipe:
        ours = pipe(**{**OURS, **options}, latents=LATENTS, ip_adapter_image=picture, ip_adapter_scale=scale).images
        plain = pipe(**{**OURS, **options}, latents=LATENTS).images
    assert float(np.abs(ours - theirs(kind, picture, scale, **options)).mean()) <= PICTURE_MEAN
    assert float(np.abs(ours - plain).mean()) > PICTURE_CHANGE


def test_on_an_engine_in_8_bits_it_does_what_it_does_on_one_in_floats(
    tiny_engine: Path, tiny_int8_engine: Path, adapters: Mapping[str, Any]
) -> None:
    """Whose builds scale channels of queries, keys and values, which those of the picture must follow."""
    with_it, without = {}, {}
    for name, folder in (("fp32", tiny_engine), ("int8", tiny_int8_engine)):
        with Pipeline.load(folder, threads=1, ip_adapter=adapters["plus"][1]) as pipe:
            with_it[name] = pipe(**OURS, ip_adapter_image=photo(1)).images
            without[name] = pipe(**OURS).images
    effect = np.square(with_it["fp32"] - without["fp32"]).mean()
    error, of_8_bits = (np.square(found["int8"] - found["fp32"]).mean() for found in (with_it, without))
    assert error < max(2 * of_8_bits, effect / 10)


def test_a_controlnet_and_a_picture_act_together(
    tiny_engine: Path, tiny_controlnets: Folders, adapters: Mapping[str, Any]
) -> None:
    folders = {"canny": tiny_controlnets["canny"][1]}
    hint = {"control_image": edges(64, 64)}
    prompt = {"ip_adapter_image": photo(1)}
    with Pipeline.load(tiny_engine, threads=1, controlnets=folders, ip_adapter=adapters["plus"][1]) as pipe:
        pictures = [pipe(**OURS, **options).images for options in ({}, hint, prompt, {**hint, **prompt})]
    for i, one in enumerate(pictures):
        for other in pictures[i + 1 :]:
            assert np.abs(one - other).mean() > PICTURE_CHANGE


def test_the_plan_has_it_and_a_call_without_is_planned_as_before(pictured: Pipeline, pipe: Pipeline) -> None:
    plan = pictured.plan(**OURS, ip_adapter_image=photo(1), budget=LEAST)
    assert {"picture encoder", "picture projection"} <= {phase.name for phase in plan.phases}
    assert pictured.plan(**OURS).table() == pipe.plan(**OURS).table()
    assert (pictured(**OURS).images == pipe(**OURS).images).all()


WRONG: Mapping[str, tuple[Mapping[str, Any], type[Exception], str]] = {
    "a scale alone": ({"ip_adapter_scale": 0.5}, RequestError, "without ip_adapter_image"),
    "a scale beyond": ({"ip_adapter_image": photo(1), "ip_adapter_scale": 11}, RequestError, "it must be 0 to 10"),
    "no pictures": ({"ip_adapter_image": []}, RequestError, "0 pictures; give 1 to 16"),
    "no picture": ({"ip_adapter_image": 7}, RequestError, "a path, a PIL picture or an array"),
    "no file": ({"ip_adapter_image": "nowhere.png"}, StorageError, "nowhere.png cannot be read"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_argument(pictured: Pipeline, case: str) -> None:
    options, kind, words = WRONG[case]
    with pytest.raises(kind) as caught:
        pictured("a red cat", **options)
    assert words in str(caught.value)


def test_folders_of_another_kind(
    pipe: Pipeline, tiny_engine: Path, tiny_controlnets: Folders, adapters: Mapping[str, Any]
) -> None:
    with pytest.raises(RequestError, match="no IP-Adapter is loaded"):
        pipe("a red cat", ip_adapter_image=photo(1))
    for other in (tiny_engine, tiny_controlnets["canny"][1]):
        with pytest.raises(IncompatibleError, match="is no IP-Adapter; build one with"):
            Pipeline.load(tiny_engine, ip_adapter=other)
    with pytest.raises(IncompatibleError, match="an IP-Adapter, which makes no pictures alone"):
        Pipeline.load(adapters["plus"][1])
    with pytest.raises(IncompatibleError, match="does not fit this engine: its tokens have"):
        Pipeline.load(ip_adapter=adapters["plus"][1])
