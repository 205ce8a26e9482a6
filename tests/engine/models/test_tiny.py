"""Our tiny decoder is diffusers' `AutoencoderTiny.decode`."""

import pytest
import torch
from diffusers import AutoencoderTiny

from pocketxl.engine.models.tiny import TinyDecoder
from pocketxl.engine.tiny import TinyDecoderArchitecture

from ...fixtures.compare import relative_error
from ...fixtures.networks import adopt, randomize
from ...tolerances import MODEL_RELATIVE


@pytest.mark.parametrize("blocks", [(3, 3, 3, 1), (1, 0, 2)], ids=["TAESD", "another"])
@pytest.mark.parametrize(("batch", "height", "width"), [(1, 8, 8), (2, 5, 7)])
def test_the_picture_is_that_of_diffusers(blocks: tuple[int, ...], batch: int, height: int, width: int) -> None:
    torch.manual_seed(4)
    theirs = randomize(AutoencoderTiny(num_decoder_blocks=blocks, decoder_block_out_channels=(16,) * len(blocks)))
    architecture = TinyDecoderArchitecture(width=16, blocks=blocks)
    ours = adopt(TinyDecoder(architecture), theirs.state_dict())
    latents = 4 * torch.randn(batch, 4, height, width)  # beyond where they are bent
    picture = ours(latents)
    side = architecture.downscale
    assert picture.shape == (batch, 3, side * height, side * width)
    assert relative_error(picture, theirs.decode(latents).sample) < MODEL_RELATIVE
