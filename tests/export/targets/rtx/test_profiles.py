"""The sizes that engines take."""

import pytest

from pocketxl.engine.architecture import VaeArchitecture
from pocketxl.engine.errors import IncompatibleError
from pocketxl.engine.specs import Role
from pocketxl.export.targets.rtx.profiles import profile, profiles, sampled_sides


def test_profiles_follow_the_spec_s_symbols() -> None:
    assert profile("base/unet", Role.UNET, "latents", ("batch", 4, "height", "width")) == (
        (1, 4, 8, 8),
        (2, 4, 128, 128),
        (2, 4, 192, 192),
    )


def test_a_component_that_is_called_with_one_row_is_built_for_one() -> None:
    assert profiles("vae_decoder", VaeArchitecture().decoder()) == {
        "latents": ((1, 4, 8, 8), (1, 4, 128, 128), (1, 4, 192, 192))
    }


def test_pictures_may_be_as_large_as_a_build_asks_for() -> None:
    shape = ("batch", 3, "image_height", "image_width")
    assert profile("vae_encoder", Role.VAE_ENCODER, "image", shape, 2048) == (
        (1, 3, 64, 64),
        (1, 3, 1024, 1024),
        (1, 3, 2048, 2048),
    )
    assert sampled_sides(2048) == (8, 64, 128, 256)


def test_a_symbol_without_a_range_is_named() -> None:
    with pytest.raises(IncompatibleError, match=r"base/unet: input latents has the dimensions \['frames'\]"):
        profile("base/unet", Role.UNET, "latents", ("frames", 4))
