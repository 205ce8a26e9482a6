"""The sizes that engines take."""

import pytest

from pocketxl.engine.architecture import VaeArchitecture
from pocketxl.engine.errors import IncompatibleError
from pocketxl.engine.specs import Role
from pocketxl.export.targets.rtx.profiles import profile, profiles


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


def test_a_symbol_without_a_range_is_named() -> None:
    with pytest.raises(IncompatibleError, match=r"base/unet: input latents has the dimensions \['frames'\]"):
        profile("base/unet", Role.UNET, "latents", ("frames", 4))
