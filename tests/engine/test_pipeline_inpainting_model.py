"""A U-Net that is told the mask and the masked picture (nine channels): built, and held to diffusers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketxl.engine.errors import RequestError
from pocketxl.engine.pipeline import Pipeline
from pocketxl.export.build import build

from ..fixtures.checkpoints import randomize, tiny_checkpoint, tiny_unet
from ..fixtures.painters import Painters, landscape, window
from ..tolerances import PICTURE_MEAN

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' schedulers

SIZE = (96, 64)
PROMPT = "a red cat"
COMMON: dict[str, Any] = {
    "negative_prompt": "a dog",
    "num_inference_steps": 10,
    "output_type": "np",
    "guidance_scale": 5.0,
}


def inpainting_checkpoint(folder: Path) -> Path:
    """A tiny base whose U-Net takes nine channels."""
    root = tiny_checkpoint(folder, "base")
    unet = tiny_unet("base", in_channels=9)
    randomize(unet, seed=9)
    unet.save_pretrained(root / "unet")
    index = json.loads((root / "model_index.json").read_text())
    (root / "model_index.json").write_text(json.dumps(index | {"_class_name": "StableDiffusionXLInpaintPipeline"}))
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return inpainting_checkpoint(tmp_path_factory.mktemp("inpainting"))


@pytest.fixture(scope="module")
def inpaint(folder: Path) -> Iterator[Pipeline]:
    engine = folder.parent / "engine"
    build(folder, engine, recipe="fp32", threads=1)
    with Pipeline.load(engine, threads=1) as pipe:
        yield pipe


@pytest.mark.parametrize(("sampler", "strength"), [("euler", 0.9999), ("euler_a", 0.6), ("dpmpp_2m", 1.0)])
def test_equals_diffusers(inpaint: Pipeline, folder: Path, sampler: str, strength: float) -> None:
    options = COMMON | {
        "sampler": sampler,
        "strength": strength,
        "image": landscape(*SIZE),
        "mask_image": window(*SIZE),
    }
    theirs = Painters(folder)(PROMPT, seed=[7], **options)
    ours = inpaint(PROMPT, seed=7, **options).images
    assert ours.shape == theirs.shape == (1, 64, 96, 3)
    assert theirs.std() > 0.05
    assert float(np.abs(ours - theirs).mean()) <= PICTURE_MEAN


def test_it_needs_a_picture_and_a_mask(inpaint: Pipeline) -> None:
    with pytest.raises(RequestError, match=r"base of this engine is for inpainting.*give image and mask_image"):
        inpaint.request(PROMPT)
    with pytest.raises(RequestError, match="for inpainting"):
        inpaint.request(PROMPT, image=landscape(*SIZE))


def test_the_mask_counts(inpaint: Pipeline) -> None:
    """The model is told it: with another one it paints something else in the same place."""
    options = COMMON | {"image": landscape(*SIZE), "seed": 7}
    whole = inpaint(PROMPT, mask_image=np.ones((64, 96)), **options).images
    part = inpaint(PROMPT, mask_image=window(*SIZE), **options).images
    assert np.abs(whole - part)[:, 16:40, 40:80].mean() > PICTURE_MEAN
