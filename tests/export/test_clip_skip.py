"""Engines whose text encoders are read before the penultimate layer, against diffusers' `clip_skip`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketxl.engine.errors import RequestError
from pocketxl.engine.picture.infotext import parse, write
from pocketxl.engine.pipeline import Pipeline
from pocketxl.export.build import build
from pocketxl.export.checkpoint.open import open_checkpoint
from pocketxl.export.clip_skip import skipping

from ..fixtures.experts import Experts
from ..tolerances import PICTURE_MEAN

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def test_pictures_equal_diffusers(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    build(tiny_folders["base"], tmp_path / "engine", recipe="fp32", clip_skip=1)
    latents = np.random.default_rng(3).standard_normal((1, 4, 8, 8), dtype=np.float32)
    # Without guidance: diffusers reads the negative prompt at the penultimate layer whatever `clip_skip` says.
    options: dict[str, Any] = {
        "num_inference_steps": 4, "seed": [4], "latents": latents, "height": 64, "width": 64, "guidance_scale": 1.0,
        "output_type": "np",
    }  # fmt: skip
    experts = Experts(tiny_folders)
    with Pipeline.load(tmp_path / "engine", threads=1) as pipe:
        ours = pipe("a red cat", clip_skip=1, **options)
        theirs = experts("a red cat", clip_skip=1, **options)
        plain = experts("a red cat", **options)
        assert float(np.abs(ours.images - theirs).mean()) <= PICTURE_MEAN
        assert float(np.abs(ours.images - plain).mean()) > 10 * PICTURE_MEAN
        # AUTOMATIC1111 counts the penultimate layer as 2.
        assert parse(write(ours.settings()))["Clip skip"] == "3"
        assert np.array_equal(pipe("a red cat", **options).images, ours.images)
        with pytest.raises(
            RequestError, match="clip_skip is 0, and this engine was built for 1; leave it out, or build"
        ):
            pipe.request("a", clip_skip=0)


@pytest.mark.parametrize("clip_skip", [-1, 2])
def test_more_than_there_are_layers_is_refused(tiny_folders: dict[str, Path], clip_skip: int) -> None:
    checkpoint = open_checkpoint(tiny_folders["base"])
    with pytest.raises(RequestError, match=f"clip_skip is {clip_skip}; the text encoders of .* allow 0 to 1"):
        skipping(checkpoint, clip_skip)
    assert skipping(checkpoint, 0) is checkpoint
