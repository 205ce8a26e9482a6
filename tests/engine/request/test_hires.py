"""The second pass of a request: its size, its steps, and one clear error for the rest."""

from dataclasses import replace
from typing import Any

import pytest

from pocketxl.engine.errors import RequestError
from pocketxl.engine.folder.manifest import read_manifest
from pocketxl.engine.miniature import FOLDER
from pocketxl.engine.request.hires import Hires, resolve_hires, second_input
from pocketxl.engine.request.request import GenerationRequest, ResolvedRequest
from pocketxl.engine.request.resolve import resolve
from pocketxl.engine.upscaler import Enlarger, UpscalerArchitecture, UpscalerKind

WITHOUT = replace(read_manifest(FOLDER).models, encodes=False)
MODELS = replace(WITHOUT, encodes=True)


def checked(**keywords: Any) -> ResolvedRequest:
    return resolve({"prompt": "a cat", "width": 136, "height": 128, **keywords}, MODELS)


def hires(**keywords: Any) -> Hires:
    found = checked(**keywords).hires
    assert found is not None
    return found


def test_without_a_scale_there_is_one_pass() -> None:
    request = checked()
    assert request.hires is None
    assert request.made == (128, 136)


def test_the_second_pass_has_sides_that_latents_have() -> None:
    request = checked(hires_scale=1.5)
    assert request.made == (192, 208)  # 204 is none
    assert (request.height, request.width) == (128, 136)


@pytest.mark.parametrize(("asked", "strength", "whole"), [(None, 0.5, 30), (15, 0.5, 30), (5, 1.0, 5), (7, 0.3, 23)])
def test_hires_steps_are_the_last_of_as_many_as_leave_them(asked: int | None, strength: float, whole: int) -> None:
    found = hires(hires_scale=2.0, hires_steps=asked, hires_strength=strength)
    assert found.whole_steps(30) == whole
    assert asked is None or found.whole_steps(30) >= asked


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"hires_steps": 3}, "hires_steps counts with hires_scale alone"),
        ({"hires_strength": 0.4}, "hires_strength counts with hires_scale alone"),
        ({"hires_upscaler": "lanczos"}, "hires_upscaler counts with hires_scale alone"),
        ({"hires_scale": 0.5}, "hires_scale is 0.5; it must be 1 to 16"),
        ({"hires_scale": float("nan")}, "hires_scale is nan; give a finite number"),
        ({"hires_scale": 2.0, "hires_upscaler": "ESRGAN"}, "hires_upscaler is 'ESRGAN'; choose one of latent, lanczos"),
        ({"hires_scale": 2.0, "hires_steps": 0}, "hires_steps is 0; it must be 1 to 1000"),
        ({"hires_scale": 2.0, "hires_strength": 2.0}, "hires_strength is 2; it must be 0 to 1"),
        ({"hires_scale": 2.0, "hires_strength": 0.0}, "leaves none"),
        ({"hires_scale": 2.0, "hires_steps": 4, "sigmas": [10.0, 1.0, 0.0]}, "hires_steps lays steps anew"),
        ({"hires_scale": 16.0, "width": 2048, "height": 2048}, "pixels of a picture is"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "-".join(value),
)
def test_what_does_not_fit_is_one_clear_error(keywords: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError) as error:
        checked(**keywords)
    assert words in str(error.value)


def test_lanczos_needs_an_encoder_and_latent_none() -> None:
    options: dict[str, Any] = {"prompt": "", "hires_scale": 2.0}
    assert resolve(options, WITHOUT).hires is not None
    with pytest.raises(RequestError, match=r"no VAE encoder, which hires_upscaler 'lanczos' needs.*or choose 'latent'"):
        resolve(options | {"hires_upscaler": "lanczos"}, WITHOUT)


NETWORK = Enlarger(
    name="4x-Small",
    digest="0123456789abcdef" * 4,
    architecture=UpscalerArchitecture(kind=UpscalerKind.COMPACT, scale=4, width=4, blocks=1),
)


@pytest.mark.parametrize(
    ("asked", "upscaler", "by"),
    [
        (None, "4x-Small", NETWORK),
        ("4x-Small", "4x-Small", NETWORK),
        ("Latent", "latent", None),
        ("lanczos", "lanczos", None),
    ],
)
def test_a_network_that_is_loaded_enlarges_unless_the_call_says_otherwise(
    asked: str | None, upscaler: str, by: Enlarger | None
) -> None:
    found = resolve_hires(
        GenerationRequest(prompt="", hires_scale=2.0, hires_upscaler=asked), MODELS, 64, 64, loaded=NETWORK
    )
    assert found is not None
    assert (found.upscaler, found.network) == (upscaler, by)
    assert second_input(found, 8).enlarged_by is by


def test_a_network_needs_an_encoder_and_another_s_name_is_an_error() -> None:
    request = GenerationRequest(prompt="", hires_scale=2.0)
    with pytest.raises(RequestError, match="no VAE encoder, which hires_upscaler '4x-Small' needs"):
        resolve_hires(request, WITHOUT, 64, 64, loaded=NETWORK)
    other = replace(request, hires_upscaler="4x-UltraSharp")
    with pytest.raises(RequestError, match=r"choose one of latent, lanczos, 4x-Small$"):
        resolve_hires(other, MODELS, 64, 64, loaded=NETWORK)
    with pytest.raises(RequestError, match=r"latent, lanczos, or give Pipeline.load\(..., upscaler=folder\) a network"):
        resolve_hires(other, MODELS, 64, 64)
