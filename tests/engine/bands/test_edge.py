"""A banded component's edge: whole latents go in, and what comes out are the declared outputs."""

import numpy as np
import pytest

from pocketxl.engine.architecture import VaeArchitecture
from pocketxl.engine.bands.edge import latent_columns, parted
from pocketxl.engine.errors import RequestError

from .test_walk import HALVING


def test_latents_columns_are_a_picture_s_over_their_scale() -> None:
    assert latent_columns("vae_encoder", HALVING, (1, 2, 8, 12)) == 3


@pytest.mark.parametrize("sides", [(8, 13), (10, 12), (0, 4)])
def test_a_picture_of_parts_of_latents_is_refused(sides: tuple[int, int]) -> None:
    with pytest.raises(RequestError, match=f"vae_encoder: input x is {sides[0]} high and {sides[1]} wide; .* 4"):
        latent_columns("vae_encoder", HALVING, (1, 2, *sides))


def test_outputs_have_their_channels_one_after_another() -> None:
    whole = np.arange(2 * 8 * 3, dtype=np.float32).reshape(2, 8, 3, 1)
    found = parted(whole, VaeArchitecture().encoder())
    assert list(found) == ["mean", "logvar"]
    assert np.array_equal(found["mean"], whole[:, :4])
    assert np.array_equal(found["logvar"], whole[:, 4:])
    assert list(parted(whole[:, :3], VaeArchitecture().decoder())) == ["image"]
