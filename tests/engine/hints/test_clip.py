"""A picture as CLIP's image encoder takes it: transformers' own processor is the oracle."""

import numpy as np
import pytest
from PIL import Image

from pocketxl.engine.hints.clip import clip_pixels


@pytest.mark.parametrize("size", [(50, 70), (70, 50), (224, 224), (31, 400), (33, 65), (1, 1)], ids=str)
@pytest.mark.parametrize("side", [32, 224])
def test_it_is_that_of_transformers(size: tuple[int, int], side: int) -> None:
    from transformers import CLIPImageProcessor

    picture = Image.fromarray(np.random.default_rng(1).integers(256, size=(*size, 3)).astype(np.uint8))
    processor = CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    theirs = np.asarray(processor(picture, return_tensors="np").pixel_values[0])
    ours = clip_pixels("picture", picture, side)
    assert ours.shape == theirs.shape == (3, side, side)
    assert np.abs(ours - theirs).max() < 1e-5
