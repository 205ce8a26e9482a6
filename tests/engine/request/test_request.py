import inspect
import math
from dataclasses import replace
from typing import Any, get_type_hints

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLInpaintPipeline, StableDiffusionXLPipeline
from hypothesis import given
from hypothesis import strategies as st

from pocketxl.engine.architecture import Models
from pocketxl.engine.errors import RequestError
from pocketxl.engine.folder.manifest import read_manifest
from pocketxl.engine.miniature import FOLDER
from pocketxl.engine.request.keywords import CallOptions
from pocketxl.engine.request.limits import LIMITS
from pocketxl.engine.request.request import GenerationRequest, Prompt, ResolvedRequest, Text
from pocketxl.engine.request.resolve import resolve
from pocketxl.engine.request.sizes import BUCKETS, size_of

# Those that no pipeline of diffusers has by this name; what they do is tested where it is done.
OURS = {
    "literal", "seed", "sampler", "schedule", "preset", "guidance_start", "guidance_end", "refiner", "base",
    "deep_cache", "embedding_folder", "dynamic", "wildcard_folder", "loras", "lora_folder", "decoder",
}  # fmt: skip
PICTURES = {"image", "strength", "mask_image", "denoising_start"}
"""diffusers has pipelines of their own for these; see test_pictures.py for their defaults."""
NOT_THERE = {
    "mask_blur", "padding_mask_crop",
    "paste_back", "hires_scale", "hires_strength", "hires_steps", "hires_upscaler", "decoder",
    "control_image", "controlnet_conditioning_scale", "control_guidance_start", "control_guidance_end",
    "control_preprocess", "control_mode", "adapter_image", "adapter_conditioning_scale",
    "adapter_conditioning_factor", "adapter_preprocess", "ip_adapter_scale",
}  # fmt: skip


MODELS = read_manifest(FOLDER).models  # native 128
BASE = replace(MODELS, denoisers={"base": MODELS.denoisers["base"]})


def checked(prompt: Any = "a cat", *, models: Models = BASE, **keywords: Any) -> ResolvedRequest:
    return resolve({"prompt": prompt, **keywords}, models)


def text(given: str) -> Text:
    return Text(given=given, runs=((given, 1.0),))


def test_names_and_defaults_are_those_of_diffusers() -> None:
    theirs = inspect.signature(StableDiffusionXLPipeline.__call__).parameters
    refiner = inspect.signature(StableDiffusionXLImg2ImgPipeline.__call__).parameters
    for name, field in GenerationRequest.__dataclass_fields__.items():
        if name in ("aesthetic_score", "negative_aesthetic_score"):
            assert field.default == refiner[name].default
        elif name in PICTURES:
            assert name in inspect.signature(StableDiffusionXLInpaintPipeline.__call__).parameters
            assert field.default is None
        elif name in OURS | NOT_THERE:
            assert name not in theirs
        elif name != "prompt":
            assert field.default == theirs[name].default, name


def test_typed_keywords_are_those_of_a_request() -> None:
    ours, typed = get_type_hints(GenerationRequest), get_type_hints(CallOptions)
    assert ours.pop("prompt")
    assert typed == ours


def test_literal_text_has_no_weights() -> None:
    given = r"chapter (1:11) of [the] \(book\) \\"
    prompt = checked(given, literal=True).prompts[0].prompt
    assert prompt.runs == ((given, 1.0),)
    assert checked(prompt.given).prompts[0].prompt == prompt, "what is written into a picture makes it again"


def test_what_diffusers_has_and_we_have_not_is_refused_with_a_reason() -> None:
    known = set(GenerationRequest.__dataclass_fields__)
    theirs = set(inspect.signature(StableDiffusionXLPipeline.__call__).parameters) - known - {"self", "kwargs"}
    assert "cross_attention_kwargs" in theirs
    for name in theirs:
        with pytest.raises(RequestError) as error:
            GenerationRequest.of({"prompt": "", name: None})
        assert "did you mean" not in str(error.value), name


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("num_inference_step", "did you mean num_inference_steps"),
        ("negativ_prompt", "did you mean negative_prompt"),
        ("steps", "use num_inference_steps"),
        ("scheduler", "use sampler"),
        ("xyzzy", "known: .*prompt"),
        ("x" * 1_000_000, "unknown"),
    ],
)
def test_unknown_keywords(name: str, advice: str) -> None:
    with pytest.raises(RequestError, match=advice):
        GenerationRequest.of({"prompt": "", name: 1})


def test_prompt_is_needed_but_may_be_empty() -> None:
    with pytest.raises(RequestError, match="prompt is missing"):
        GenerationRequest.of({})
    assert checked("").prompts == (Prompt(prompt=text("")),)


def test_defaults_are_filled_in() -> None:
    request = checked()
    assert (request.height, request.width) == (128, 128)
    assert request.original_size == request.target_size == (128, 128)
    assert (request.images, request.guidance_scale, request.refiner, request.denoising_end) == (1, 5.0, False, None)
    assert (request.sampler.name, request.schedule, request.num_inference_steps) == ("euler", "default", 50)
    assert request.seeds[0] is not None
    assert 0 <= request.seeds[0] < 2**32
    assert checked().seeds != request.seeds, "a fresh seed for each request"


def test_the_base_hands_over_at_0_8_where_a_refiner_follows() -> None:
    assert checked(models=MODELS).denoising_end == 0.8
    assert checked(models=MODELS, denoising_end=0.5).denoising_end == 0.5
    without = checked(models=MODELS, refiner=False)
    assert (without.refiner, without.denoising_end) == (False, None)


@pytest.mark.parametrize(
    "bad",
    [
        {"width": 100}, {"height": 0}, {"height": -8}, {"width": 8200}, {"width": True}, {"width": 128.0},
        {"width": "128"}, {"height": math.nan}, {"height": 10**5000}, {"width": 8192, "height": 8192},
        {"num_inference_steps": 0}, {"num_inference_steps": -1}, {"num_inference_steps": 1001},
        {"num_inference_steps": 20.0}, {"num_inference_steps": True},
        {"guidance_scale": math.nan}, {"guidance_scale": math.inf}, {"guidance_scale": -1}, {"guidance_scale": "5"},
        {"guidance_scale": True}, {"guidance_scale": 10**400}, {"guidance_rescale": 1.5},
        {"guidance_rescale": math.nan},
        {"num_images_per_prompt": 0}, {"num_images_per_prompt": 65}, {"num_images_per_prompt": 1.0},
        {"sampler": "elur"}, {"sampler": None}, {"sampler": "x" * 1000}, {"schedule": "karas"}, {"schedule": 3},
        {"output_type": "pt"}, {"output_type": None}, {"output_type": np.zeros(2)},
        {"seed": -1}, {"seed": 2**64}, {"seed": 1.5}, {"seed": True}, {"seed": "1"}, {"seed": [1, 2]}, {"seed": []},
        {"seed": np.array(5)}, {"seed": [1.5]}, {"seed": 2**64 - 1, "num_images_per_prompt": 2},
        {"generator": 7}, {"generator": [np.random.default_rng(1)] * 2}, {"generator": [], "seed": None},
        {"generator": np.random.default_rng(1), "seed": 1},
        {"denoising_end": 0}, {"denoising_end": 1}, {"denoising_end": 1.0}, {"denoising_end": -0.1},
        {"denoising_end": math.nan}, {"denoising_end": "0.8"},
        {"timesteps": [999, 500], "sigmas": [1.0, 0.0]}, {"timesteps": []}, {"timesteps": [1, 2]},
        {"timesteps": [5, 5]},
        {"timesteps": [1000, 1]}, {"timesteps": [5, -1]}, {"timesteps": [math.nan]}, {"timesteps": 5},
        {"timesteps": "abc"}, {"timesteps": list(np.linspace(999, 0, 1001))}, {"timesteps": [9], "schedule": "karras"},
        {"sigmas": [1.0]}, {"sigmas": [0.0, 1.0]}, {"sigmas": [1.0, -1.0]}, {"sigmas": [math.inf, 0.0]},
        {"sigmas": [2.0, 0.0], "sampler": "Euler Karras"},
        {"latents": np.zeros((1, 4, 16, 15), np.float32)}, {"latents": np.zeros((2, 4, 16, 16), np.float32)},
        {"latents": np.zeros((1, 4, 16, 16), np.int64)}, {"latents": np.full((1, 4, 16, 16), np.nan, np.float32)},
        {"latents": np.full((1, 4, 16, 16), 1e300)}, {"latents": "noise"}, {"latents": [[1.0], [1.0, 2.0]]},
        {"latents": torch.zeros(1, 4, 16, 16, dtype=torch.bfloat16)},
        {"original_size": (1024,)}, {"original_size": 1024}, {"original_size": (0, 5)}, {"target_size": (1.5, 2)},
        {"crops_coords_top_left": (-1, 0)}, {"crops_coords_top_left": "ab"},
        {"negative_original_size": (8, 8)}, {"negative_target_size": (8, 8)},
        {"negative_crops_coords_top_left": (1, 1)},
        {"aesthetic_score": math.nan}, {"aesthetic_score": 11}, {"negative_aesthetic_score": -1},
        {"eta": 0.5}, {"eta": 2, "sampler": "ddim"}, {"eta": math.nan, "sampler": "ddim"},
        {"preset": "fastest"}, {"preset": 4}, {"guidance_start": 0.7, "guidance_end": 0.3}, {"guidance_end": "1"},
        {"refiner": 1}, {"refiner": "yes"}, {"callback_on_step_end": 1},
        {"prompt": None}, {"prompt": 5}, {"prompt": []}, {"prompt": ["a", None]}, {"prompt": b"a"},
        {"prompt": "a" * 32_001}, {"prompt": "\ud800"}, {"prompt": "(a:99)"}, {"negative_prompt": 5},
        {"negative_prompt": ["a", "b"]}, {"prompt": ["a", "b"], "prompt_2": ["c"]}, {"negative_prompt_2": "(a:-99)"},
        {"prompt": ["a"] * 5, "num_images_per_prompt": 64},
    ],
    ids=lambda bad: ",".join(f"{k}={type(v).__name__!s}" for k, v in bad.items()),
)  # fmt: skip
def test_bad_values(bad: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as error:
        checked(**{"prompt": "a cat", **bad})
    message = str(error.value)
    assert len(message) < 400
    assert ";" in message or "," in message, "value, what is allowed, and the fix"


@given(st.dictionaries(st.sampled_from(sorted(set(GenerationRequest.__dataclass_fields__) - {"prompt", "latents"})),
       st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
                 st.lists(st.integers(), max_size=3), st.binary(max_size=2), st.complex_numbers())))  # fmt: skip
def test_anything_is_accepted_or_one_clear_error(keywords: dict[str, Any]) -> None:
    try:
        request = checked(**keywords)
    except RequestError:
        return
    assert request.height % 8 == request.width % 8 == 0
    assert math.isfinite(request.guidance_scale)


def test_sizes_that_are_allowed() -> None:
    for side in (8, 16, 24, 1000, 4096):
        request = checked(width=side, height=np.int64(side))
        assert (request.width, request.height) == (side, side)
        assert type(request.height) is int


def test_the_message_proposes_the_nearest_sizes() -> None:
    with pytest.raises(RequestError, match="width is 100, not a multiple of 8; use 96 or 104"):
        checked(width=100)


def test_samplers_in_any_spelling() -> None:
    assert checked(sampler="DPM++ 2M Karras").sampler.name == "dpmpp_2m"
    assert checked(sampler="DPM++ 2M Karras").schedule == "karras"
    assert checked(sampler="Euler a", schedule="SGM Uniform").sampler.name == "euler_a"
    with pytest.raises(RequestError, match="choose one of euler, euler_a, heun"):
        checked(sampler="k_foo")


def test_one_seed_counts_up_and_many_are_taken_as_they_are() -> None:
    assert checked(seed=7, num_images_per_prompt=3).seeds == (7, 8, 9)
    assert checked(["a", "b"], seed=[5, 3, 3, 0], num_images_per_prompt=2).seeds == (5, 3, 3, 0)
    assert checked(seed=np.array([2**64 - 1], np.uint64)).seeds == (2**64 - 1,)


def test_generators_have_seeds_while_nothing_was_drawn_from_them() -> None:
    one = torch.Generator().manual_seed(11)
    assert checked(generator=one).seeds == (11,)
    assert checked(generator=one, num_images_per_prompt=2).seeds == (None, None), "both draw from it"
    two = [torch.Generator().manual_seed(s) for s in (4, 9)]
    assert checked(generator=two, num_images_per_prompt=2).seeds == (4, 9)
    torch.randn(3, generator=two[1])
    assert checked(generator=two, num_images_per_prompt=2).seeds == (4, None)
    with pytest.raises(RequestError, match="2 generators were given for 3 pictures"):
        checked(generator=two, num_images_per_prompt=3)
    with pytest.raises(RequestError, match="one kind"):
        checked(generator=[one, np.random.default_rng(3)], num_images_per_prompt=2)
    drawn = checked(generator=np.random.default_rng(3)).seeds
    assert drawn == (int(np.random.default_rng(3).integers(2**32)),)


def test_prompts_with_their_partners() -> None:
    request = checked(["a", "b"], prompt_2="c", negative_prompt=["d", "e"], num_images_per_prompt=2)
    assert request.prompts == (
        Prompt(prompt=text("a"), prompt_2=text("c"), negative_prompt=text("d")),
        Prompt(prompt=text("b"), prompt_2=text("c"), negative_prompt=text("e")),
    )
    assert request.images == 4


def test_levels_replace_steps() -> None:
    assert checked(timesteps=[999, 500.5, 0]).num_inference_steps == 3
    assert checked(sigmas=np.array([10.0, 1.0, 0.0], np.float32)).num_inference_steps == 2


def test_latents_become_float32() -> None:
    noise = np.random.default_rng(0).standard_normal((1, 4, 16, 16))
    request = checked(latents=noise)
    assert request.latents is not None
    assert request.latents.dtype == np.float32
    np.testing.assert_array_equal(request.latents, noise.astype(np.float32))
    latents = checked(latents=torch.zeros(1, 4, 8, 16), height=64).latents
    assert latents is not None
    assert latents.shape == (1, 4, 8, 16)


def test_limits_are_inclusive() -> None:
    assert checked(guidance_scale=LIMITS["guidance_scale"][1]).guidance_scale == 100
    assert checked(num_inference_steps=1000).num_inference_steps == 1000
    assert checked("a" * 32_000).prompts[0].prompt.given


def test_guidance_is_off_up_to_one() -> None:
    model = MODELS.denoisers["base"]
    assert not model.guided(1.0)
    assert model.guided(1.01)
    told = replace(model, unet=replace(model.unet, time_cond_proj_dim=256))
    assert not told.guided(5.0), "it takes the scale itself"


class TestBuckets:
    def test_the_report_list(self) -> None:
        sizes = set(BUCKETS.values())
        assert len(sizes) == 41, "the square, twenty wide ones and as many tall"
        for width, height in sizes:
            assert width % 64 == height % 64 == 0
            assert 0.88 < width * height / 1024**2 <= 1.01
            assert (height, width) in sizes

    @pytest.mark.parametrize("name", [n for n in BUCKETS if ":" in n])
    def test_a_ratio_names_its_nearest_bucket(self, name: str) -> None:
        wide, tall = map(int, name.split(":"))
        distance = {size: abs(math.log(size[0] / size[1] * tall / wide)) for size in BUCKETS.values()}
        assert BUCKETS[name] == min(distance, key=distance.__getitem__)

    @pytest.mark.parametrize(
        ("name", "native", "size"),
        [
            ("3:2", 1024, (1216, 832)),
            ("portrait", 1024, (832, 1216)),
            ("3:2", 128, (152, 104)),
            (" Square ", 128, (128, 128)),
            ("9:16", 1024, (768, 1344)),
            ("1536x640", 512, (768, 320)),
            ("4:1", 8, (16, 8)),
        ],
    )
    def test_sizes(self, name: str, native: int, size: tuple[int, int]) -> None:
        assert size_of(name, native=native) == size

    def test_every_bucket_is_a_valid_request(self) -> None:
        for name in BUCKETS:
            for native in (128, 512, 1024):
                width, height = size_of(name, native=native)
                checked(width=width, height=height)

    def test_unknown(self) -> None:
        with pytest.raises(RequestError, match=r"did you mean '(landscape)'.*choose one of square"):
            size_of("landscpe")
