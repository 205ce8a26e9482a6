"""Embeddings in place of prompts: diffusers' keywords with diffusers' arrays, and what `Pipeline.encode` returned."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from pocketxl.engine.errors import RequestError
from pocketxl.engine.pipeline import Pipeline

from ..tolerances import PICTURE_MEAN

if TYPE_CHECKING:
    from ..fixtures.experts import Experts

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

NAMES = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
COMMON: dict[str, Any] = {"num_inference_steps": 4, "height": 64, "width": 64, "output_type": "np"}


def embeds(pipeline: Any, prompt: str | list[str], negative: str | list[str] | None) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        found = pipeline.encode_prompt(prompt, negative_prompt=negative, device="cpu")
    return dict(zip(NAMES, found, strict=True))


def starting() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((1, 4, 8, 8), dtype=np.float32)


@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize("guidance_scale", [5.0, 1.0])
def test_they_mean_what_they_mean_in_diffusers(
    pipe: Pipeline, experts: "Experts", repeats: int, guidance_scale: float
) -> None:
    given: dict[str, Any] = embeds(experts.base, "a red cat", "sky")
    given |= {name: given[name].repeat(1, repeats, 1) for name in NAMES[:2]}  # longer than 77 tokens too
    options = {**COMMON, "latents": starting(), "seed": [4], "guidance_scale": guidance_scale}
    ours = pipe(**options, **given, refiner=False).images
    theirs = experts(None, **options, **given)  # type: ignore[arg-type]
    assert float(np.abs(ours - theirs).mean()) <= PICTURE_MEAN


def test_without_a_negative_zeros_stand_for_it(pipe: Pipeline, experts: "Experts") -> None:
    given: dict[str, Any] = {
        name: value for name, value in embeds(experts.base, "a red cat", None).items() if "neg" not in name
    }
    ours = pipe(**COMMON, **given, seed=3, refiner=False).images
    np.testing.assert_array_equal(ours.shape, (1, 64, 64, 3))
    plain = pipe("a red cat", **COMMON, seed=3, refiner=False).images
    assert float(np.abs(ours - plain).mean()) <= PICTURE_MEAN


def test_base_and_refiner_have_their_own(pipe: Pipeline, experts: "Experts") -> None:
    prompts, negatives = ["a red cat", "blue sky"], ["sky", "dog"]
    own = {kind: embeds(getattr(experts, kind), prompts, negatives) for kind in ("base", "refiner")}
    given: dict[str, Any] = {name: {kind: own[kind][name].numpy() for kind in own} for name in NAMES}
    ours = pipe(**COMMON, **given, seed=3).images
    plain = pipe(prompts, negative_prompt=negatives, **COMMON, seed=3).images
    assert float(np.abs(ours - plain).mean()) <= PICTURE_MEAN
    assert ours.shape == (2, 64, 64, 3)


def test_what_encode_returned_makes_the_same_picture(pipe: Pipeline) -> None:
    request = pipe.request("a red cat", negative_prompt="sky", **COMMON)
    ours = pipe(prompt_embeds=pipe.encode(request), **COMMON, seed=3)
    plain = pipe("a red cat", negative_prompt="sky", **COMMON, seed=3)
    np.testing.assert_array_equal(ours.images, plain.images)
    assert ours.settings()["Prompt embeds"] == "given"


def test_each_picture_of_a_stream_has_its_own(pipe: Pipeline) -> None:
    request = pipe.request(["a red cat", "blue sky"], **COMMON)
    encoded = pipe.encode(request)
    options = {**COMMON, "num_images_per_prompt": 2, "seed": 3}
    together = pipe(prompt_embeds=encoded, **options).images
    one_by_one = [output.images for output in pipe.stream(prompt_embeds=encoded, **options)]
    np.testing.assert_array_equal(together, np.concatenate(one_by_one))


GOOD = {"prompt_embeds": np.zeros((1, 77, 192), np.float32), "pooled_prompt_embeds": np.zeros((1, 96), np.float32)}
NEGATIVE = {f"negative_{name}": value for name, value in GOOD.items()}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"pooled_prompt_embeds": None}, "count only together; give both"),
        ({"prompt_embeds": None}, "count only together; give both"),
        ({"negative_prompt_embeds": GOOD["prompt_embeds"]}, "negative_pooled_prompt_embeds count only together"),
        ({"prompt_embeds": np.zeros((1, 77, 9), np.float32)}, r"shape \(1, 77, 9\); for the base it must be "),
        ({"prompt_embeds": np.zeros((1, 1233, 192), np.float32)}, r"must be \(prompts, tokens, 192\)"),
        ({"prompt_embeds": np.zeros((1, 0, 192), np.float32)}, r"must be \(prompts, tokens, 192\)"),
        ({"pooled_prompt_embeds": np.zeros((2, 96), np.float32)}, r"must be \(1, 96\)"),
        ({**NEGATIVE, "negative_prompt_embeds": np.zeros((1, 154, 192), np.float32)}, r"must be \(1, 77, 192\)"),
        ({"prompt_embeds": np.zeros((1, 77, 192), np.int64)}, "give an array of floats"),
        ({"prompt_embeds": np.full((1, 77, 192), np.nan, np.float32)}, "NaN or Inf"),
        ({"prompt_embeds": torch.zeros(1, 77, 192, dtype=torch.bfloat16)}, "cannot be read as an array"),
        ({"prompt": "a cat"}, "prompt and prompt_embeds were both given"),
        ({"negative_prompt": "a cat"}, "negative_prompt and prompt_embeds were both given"),
        ({"refiner": True}, "prompt_embeds is one array, and base and refiner make the pictures"),
        ({"refiner": True, "prompt_embeds": {"base": GOOD["prompt_embeds"]}, "pooled_prompt_embeds": {}},
         "has none for the base"),
        ({"prompt_embeds": {"refiner": ()}, "pooled_prompt_embeds": None}, "none for the base"),
        ({"prompt_embeds": {"base": ((1, 2),)}, "pooled_prompt_embeds": None}, "count only together"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told(pipe: Pipeline, change: dict[str, Any], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        pipe.request(**{"refiner": False, **GOOD, **change})


def test_a_refiner_that_takes_no_zeros_needs_a_negative(pipe: Pipeline) -> None:
    given: dict[str, Any] = {
        "prompt_embeds": {"base": GOOD["prompt_embeds"], "refiner": np.zeros((1, 77, 128), np.float32)},
        "pooled_prompt_embeds": dict.fromkeys(("base", "refiner"), GOOD["pooled_prompt_embeds"]),
    }
    with pytest.raises(RequestError, match="the refiner takes no zeros for a negative prompt; give negative_prompt_e"):
        pipe.request(**given)
