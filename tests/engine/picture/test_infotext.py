from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pocketxl.engine.errors import IntegrityError, RequestError
from pocketxl.engine.folder.manifest import read_manifest
from pocketxl.engine.miniature import FOLDER
from pocketxl.engine.picture.infotext import MAX_CHARACTERS, parse, write
from pocketxl.engine.picture.parameters import describe, keywords
from pocketxl.engine.request.request import ResolvedRequest
from pocketxl.engine.request.resolve import resolve
from pocketxl.engine.sampling.samplers.table import SAMPLERS, SCHEDULES

from ...fixtures.growth import assert_linear

SETTINGS = {"Steps": "20", "Sampler": "DPM++ 2M", "Schedule type": "Karras"}

# As AUTOMATIC1111's documentation shows it, and as its programs write it today.
FOREIGN = """girl with an artist's beret, ((eyeshadow)), (coquettish), detailed, intricate
second line
Negative prompt: ugly, fat, (((deformed))), [blurry], bad anatomy
disfigured
Steps: 20, Sampler: Euler a, Schedule type: Automatic, CFG scale: 7, Seed: 965400086, Size: 512x768, Model hash: \
45dee52b, Model: v1-5, Lora hashes: "add_detail: 7c6bad76eb54, x: \\"y\\"", Version: v1.9.4"""


def test_the_form() -> None:
    text = write(
        {
            "Prompt": "a red apple",
            "Negative prompt": "blurry",
            **SETTINGS,
            "Model": "a, b: c",
            "Version": "PocketXL 0.1.0",
        }
    )
    assert text == (
        "a red apple\nNegative prompt: blurry\n"
        'Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, Model: "a, b: c", Version: PocketXL 0.1.0'
    )


def test_text_of_automatic1111() -> None:
    assert parse(FOREIGN) == {
        "Prompt": "girl with an artist's beret, ((eyeshadow)), (coquettish), detailed, intricate\nsecond line",
        "Negative prompt": "ugly, fat, (((deformed))), [blurry], bad anatomy\ndisfigured",
        "Steps": "20",
        "Sampler": "Euler a",
        "Schedule type": "Automatic",
        "CFG scale": "7",
        "Seed": "965400086",
        "Size": "512x768",
        "Model hash": "45dee52b",
        "Model": "v1-5",
        "Lora hashes": 'add_detail: 7c6bad76eb54, x: "y"',
        "Version": "v1.9.4",
    }


@pytest.mark.parametrize("text", ["", "a cat", "a cat\nSteps: 20, Sampler: Euler", "a: b\nc, d, e", ", ,:,"])
def test_text_without_settings_is_a_prompt(text: str) -> None:
    assert parse(text) == {"Prompt": text}


def test_a_negative_prompt_needs_no_prompt() -> None:
    assert parse("Negative prompt: x\nSteps: 1, Seed: 2, Size: 8x8\n") == {
        "Prompt": "", "Negative prompt": "x", "Steps": "1", "Seed": "2", "Size": "8x8"
    }  # fmt: skip


tricky = st.lists(
    st.sampled_from(["\n", "\r", ",", ":", '"', "\\", " ", "Negative prompt:", "Steps: 20, a: b, cc: d", "Exact prompt",
                     "é", "\u2028", "\x00", "\x85", "🎉", "word", "Sampler", "{", "\t"]), max_size=8
).map("".join)  # fmt: skip
values = st.one_of(tricky, st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=30))
keys = st.from_regex(r"\A[A-Za-z][A-Za-z \-/]{0,10}[a-z]\Z").filter(
    lambda k: not k.startswith(("Exact", "Prompt", "Negative"))
)


@given(values, st.none() | values, st.dictionaries(keys, values, max_size=5))
@example("", "", {})
@example("a\nNegative prompt: b", None, {})
@example("Negative prompt: b", "", {})
@example("x", "y\nNegative prompt: z\n", {})
@example("x\n", None, {"zz": ' "'})
def test_round_trip(prompt: str, negative: str | None, extra: dict[str, str]) -> None:
    parameters = {"Prompt": prompt, **({} if negative is None else {"Negative prompt": negative}), **SETTINGS, **extra}
    assert parse(write(parameters)) == parameters


@given(st.text(alphabet=st.sampled_from('ab:," \\\n'), max_size=200))
def test_any_text_is_read(text: str) -> None:
    assert "Prompt" in parse(text)


@pytest.mark.parametrize(
    "parameters",
    [
        {"Prompt": "x"},
        {"Steps": "1", "Seed": "2"},
        {**SETTINGS, "a,b": "x"},
        {**SETTINGS, "": "x"},
        {**SETTINGS, "new\nline": "x"},
        {**SETTINGS, "Exact prompt": "x"},
        {**SETTINGS, "k" * 65: "x"},
        {f"key {i}": "x" for i in range(300)},
        {**SETTINGS, "Prompt": "x" * (MAX_CHARACTERS + 1)},
    ],
)
def test_what_cannot_be_written(parameters: dict[str, str]) -> None:
    with pytest.raises(RequestError):
        write(parameters)


def test_too_long_a_text_is_not_read() -> None:
    with pytest.raises(IntegrityError, match="more than 1048576 are not read"):
        parse("x" * (MAX_CHARACTERS + 1))


@pytest.mark.parametrize(
    "unit",
    ["a", "a ", "a:", "aa:,", 'a: "', 'aa: "b", ', 'aa: "\\', '"', "\\", ",", ":", "\n", "\nNegative prompt:", "\r\n",
     "aa: " + '"' + "x" * 1000 + ", ", 'aa: "\\",aa: "', " "],
)  # fmt: skip
def test_a_hostile_megabyte_takes_linear_time(unit: str) -> None:
    text = (unit * (MAX_CHARACTERS // len(unit)))[:1_000_000]
    assert_linear(lambda size: parse(text[:size]), 100_000)


def valid(**keywords_: Any) -> ResolvedRequest:
    return resolve(keywords_, read_manifest(FOLDER).models)


REQUESTS = [
    {"prompt": "a cat", "seed": 1, "refiner": False},
    {"prompt": "a cat", "negative_prompt": "", "seed": 2**64 - 1},
    {"prompt": 'line\nNegative prompt: "x"', "negative_prompt": "a,\nb", "prompt_2": "c: d", "negative_prompt_2": "",
     "seed": 5, "guidance_scale": 7.123456789012345, "guidance_rescale": 0.7, "eta": 0.25, "sampler": "ddim",
     "schedule": "trailing", "width": 152, "height": 104, "denoising_end": 0.1 + 0.2, "aesthetic_score": 7.5,
     "negative_aesthetic_score": 1, "original_size": (1024, 768), "target_size": (64, 32),
     "crops_coords_top_left": (3, 4), "negative_original_size": (128, 128), "negative_target_size": (9, 8),
     "negative_crops_coords_top_left": (0, 7), "num_inference_steps": 7},
    {"prompt": "", "seed": 0, "timesteps": [999, 1 / 3, 0]},
    {"prompt": "a cat", "seed": 1, "guidance_start": 0.125, "guidance_end": 0.7, "deep_cache": 3, "sampler": "tcd",
     "eta": 0.3, "schedule": "align_your_steps"},
    {"prompt": "a cat", "seed": 1, "preset": "dmd2"},
    {"prompt": "a cat", "seed": 1, "preset": "laptop"},
    {"prompt": "", "seed": 0, "sigmas": [14.6, 0.1, 0.0], "refiner": False, "denoising_end": 0.5},
]  # fmt: skip


@pytest.mark.parametrize("given_", REQUESTS)
def test_a_request_comes_back_from_its_picture(given_: dict[str, Any]) -> None:
    request = valid(**given_)
    text = write(describe(request, 0, model="m, x", version="0.1.0", refiner="r"))
    again = valid(**keywords(parse(text)))
    assert again == request


def test_each_picture_has_its_own_prompt_and_seed() -> None:
    request = valid(prompt=["a", "b"], seed=3, num_images_per_prompt=2)
    found = [describe(request, i, model="m", version="0") for i in range(4)]
    assert [(s["Prompt"], s["Seed"]) for s in found] == [("a", "3"), ("a", "4"), ("b", "5"), ("b", "6")]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_sampler_labels_both_ways(sampler: str) -> None:
    for schedule in SCHEDULES:
        request = valid(prompt="", sampler=sampler, schedule=schedule, seed=1)
        settings = describe(request, 0, model="m", version="0")
        assert settings["Sampler"] == SAMPLERS[sampler].label
        again = valid(**keywords(settings))
        assert (again.sampler.name, again.schedule) == (sampler, schedule)


def test_old_labels_with_the_schedule_in_the_samplers_name() -> None:
    found = keywords({"Prompt": "x", "Sampler": "DPM++ 2M Karras"})
    request = valid(**found)
    assert (request.sampler.name, request.schedule) == ("dpmpp_2m", "karras")


def test_keywords_of_another_programs_text() -> None:
    assert keywords(parse(FOREIGN)) == {
        "prompt": parse(FOREIGN)["Prompt"],
        "negative_prompt": parse(FOREIGN)["Negative prompt"],
        "sampler": "Euler a",
        "schedule": "Automatic",
        "num_inference_steps": 20,
        "guidance_scale": 7.0,
        "seed": 965400086,
        "width": 512,
        "height": 768,
        "refiner": False,
    }


@pytest.mark.parametrize(
    "bad", [{"Steps": "many"}, {"Size": "512"}, {"Size": "5x6x7"}, {"Seed": ""}, {"Seed": "1 2"}, {"Sigmas": "a"},
            {"Sigmas": ""}, {"Steps": "9" * 5000}, {"CFG scale": "x" * 5000}]
)  # fmt: skip
def test_settings_that_cannot_be_read(bad: dict[str, str]) -> None:
    with pytest.raises(RequestError, match=f"setting {next(iter(bad))} is"):
        keywords({"Prompt": "x", **bad})
