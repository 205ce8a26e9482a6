"""Presets by name: what they set, what counts above them, and what gives way together."""

from typing import Any

import pytest

from pocketxl.engine.errors import RequestError
from pocketxl.engine.folder.manifest import read_manifest
from pocketxl.engine.miniature import FOLDER
from pocketxl.engine.presets.apply import with_preset
from pocketxl.engine.presets.table import KEYWORDS, PRESETS, find_preset
from pocketxl.engine.request.request import GenerationRequest, ResolvedRequest
from pocketxl.engine.request.resolve import resolve

MODELS = read_manifest(FOLDER).models


def checked(**keywords: Any) -> ResolvedRequest:
    return resolve({"prompt": "a cat", "seed": 1, **keywords}, MODELS)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_valid_call(name: str) -> None:
    row, request = PRESETS[name], checked(preset=name)
    assert request.sampler.name == row.sampler
    assert request.num_inference_steps == row.num_inference_steps
    assert request.guidance_scale == row.guidance_scale
    assert request.timesteps == row.timesteps
    assert request.refiner is bool(row.refiner)
    assert set(KEYWORDS) <= set(GenerationRequest.__dataclass_fields__)


@pytest.mark.parametrize("name", PRESETS)
def test_it_says_the_same_as_its_keywords(name: str) -> None:
    assert checked(preset=name) == checked(**PRESETS[name].options())


@pytest.mark.parametrize("name", [name for name, row in PRESETS.items() if row.source])
def test_distilled_models_run_without_negatives_or_with_guidance_inside(name: str) -> None:
    assert PRESETS[name].guidance_scale == (8.0 if name == "lcm" else 1.0)
    assert PRESETS[name].refiner is False


def test_no_preset_changes_nothing() -> None:
    assert checked() == checked(preset=None)
    assert checked().num_inference_steps == 50


@pytest.mark.parametrize("spelling", ["lightning-4", "Lightning-4", " lightning_4 "])
def test_spellings(spelling: str) -> None:
    assert find_preset(spelling) is PRESETS["lightning-4"]


@pytest.mark.parametrize("bad", ["lightening", "", 4, ["fast"], "x" * 10_000])
def test_an_unknown_one_is_told_all_names(bad: object) -> None:
    with pytest.raises(RequestError) as caught:
        checked(preset=bad)
    assert all(name in str(caught.value) for name in PRESETS)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("beside", "expected"),
    [
        ({"num_inference_steps": 6}, {"num_inference_steps": 6, "timesteps": None, "sampler": "lcm"}),
        ({"schedule": "simple"}, {"schedule": "simple", "timesteps": None, "num_inference_steps": 4}),
        ({"timesteps": [999, 500]}, {"timesteps": (999, 500), "num_inference_steps": 2}),
        ({"sigmas": [14.0, 1.0, 0.0]}, {"sigmas": (14.0, 1.0, 0.0), "timesteps": None}),
        ({"guidance_scale": 2.0}, {"guidance_scale": 2.0, "timesteps": (999, 749, 499, 249)}),
        ({"sampler": "euler"}, {"sampler": "euler", "timesteps": (999, 749, 499, 249)}),
        ({"sampler": "Euler Karras"}, {"sampler": "euler", "schedule": "karras", "timesteps": None}),
        ({"refiner": True}, {"refiner": True}),
        ({"denoising_end": 0.5}, {"refiner": True, "denoising_end": 0.5}),
        ({"timesteps": None}, {"timesteps": (999, 749, 499, 249)}),
    ],
    ids=str,
)
def test_what_is_given_counts_instead(beside: dict[str, Any], expected: dict[str, Any]) -> None:
    request = checked(preset="dmd2", **beside)
    for name, value in expected.items():
        found = getattr(request, name)
        assert (found.name if name == "sampler" else found) == value


def test_eta_goes_with_its_sampler() -> None:
    assert checked(preset="tcd").eta == 0.3
    assert checked(preset="tcd", sampler="ddim").eta == 0.3
    assert checked(preset="tcd", sampler="lcm").eta == 0.0
    with pytest.raises(RequestError, match=r"eta is 0\.5 and the sampler lcm"):
        checked(preset="tcd", sampler="lcm", eta=0.5)


def test_an_unknown_sampler_beside_a_preset_is_told_as_ever() -> None:
    assert with_preset({"preset": "tcd", "sampler": "magic"})["sampler"] == "magic"
    with pytest.raises(RequestError, match="'magic' is unknown"):
        checked(preset="tcd", sampler="magic")
