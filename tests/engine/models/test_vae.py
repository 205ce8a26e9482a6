"""Our VAE decoder is diffusers' `AutoencoderKL.decode`."""

import pytest
import torch

from ...fixtures.compare import relative_error
from ...fixtures.networks import vae_pair
from ...tolerances import MODEL_RELATIVE


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 8, 8), (3, 5, 7)])
def test_the_picture_is_that_of_diffusers(batch: int, height: int, width: int) -> None:
    torch.manual_seed(4)
    pair = vae_pair()
    latents = torch.randn(batch, 4, height, width)
    ours = pair.ours(latents)
    assert ours.shape == (batch, 3, 8 * height, 8 * width)
    assert relative_error(ours, pair.theirs.decode(latents).sample) < MODEL_RELATIVE


def test_the_parameters_are_the_decoder_s_half_of_diffusers() -> None:
    pair = vae_pair()
    theirs = {n for n in pair.theirs.state_dict() if n.startswith(("decoder.", "post_quant_conv."))}
    assert set(pair.ours.state_dict()) == theirs
