"""LoRAs that prompts name: what a request then asks for, and what is tokenized."""

from pathlib import Path

import pytest

from pocketxl.engine.errors import RequestError
from pocketxl.engine.request.loras import LoraUse
from pocketxl.engine.request.resolve import resolve

from ...fixtures.manifests import MODELS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("style", "fox"):
        (tmp_path / f"{name}.safetensors").touch()
    return tmp_path


def test_tags_are_taken_out_of_what_is_tokenized_and_stay_in_what_is_written(folder: Path) -> None:
    prompt = "a (red:1.2) fox <lora:style:0.5:0.25>"
    request = resolve({"prompt": prompt, "lora_folder": str(folder)}, MODELS)
    assert request.prompts[0].prompt.given == prompt
    assert request.prompts[0].prompt.runs == (("a ", 1.0), ("red", 1.2), (" fox ", 1.0))
    (use,) = request.loras
    assert (use.file, use.weight, use.text_weight, use.tagged) == (str(folder / "style.safetensors"), 0.25, 0.5, True)
    assert (use.weight_in("text_encoder_2"), use.weight_in("refiner/text_encoder_2")) == (0.5, 0.5)
    assert (use.weight_in("base/unet"), use.weight_in("base/conditioner")) == (0.25, 0.25)


def test_they_stand_beside_those_of_the_option(folder: Path) -> None:
    request = resolve({"prompt": "<lora:fox>", "loras": {"other": (0.5, 0.5)}, "lora_folder": folder}, MODELS)
    assert [(Path(use.file).stem, use.weight, use.tagged) for use in request.loras] == [
        ("other", 0.5, False),
        ("fox", 1.0, True),
    ]


@pytest.mark.parametrize("options", [{}, {"lora_folder": "anywhere", "literal": True}])
def test_without_a_folder_or_literally_they_are_words(options: dict[str, object]) -> None:
    request = resolve({"prompt": "<lora:fox:1>", **options}, MODELS)
    assert request.prompts[0].prompt.runs == (("<lora:fox:1>", 1.0),)
    assert request.loras == ()


def test_in_a_negative_prompt_they_are_words_as_in_automatic1111(folder: Path) -> None:
    request = resolve({"prompt": "x", "negative_prompt": "<lora:fox>", "lora_folder": str(folder)}, MODELS)
    negative = request.prompts[0].negative_prompt
    assert negative is not None
    assert negative.runs == (("<lora:fox>", 1.0),)
    assert request.loras == ()


def test_prompts_of_one_call_have_the_same_loras(folder: Path) -> None:
    same = resolve({"prompt": ["a <lora:fox>", "<lora:fox> b"], "lora_folder": str(folder)}, MODELS)
    assert [prompt.prompt.runs[0][0] for prompt in same.prompts] == ["a ", " b"]
    with pytest.raises(RequestError, match="name different LoRAs"):
        resolve({"prompt": ["a <lora:fox>", "b"], "lora_folder": str(folder)}, MODELS)


def test_a_weight_of_nothing_leaves_the_lora_out(folder: Path) -> None:
    assert resolve({"prompt": "<lora:fox:0>", "lora_folder": str(folder)}, MODELS).loras == ()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"prompt": "<lora:fox:11>"}, r"weight of LoRA .* is 11; it must be -10 to 10"),
        ({"prompt": "<lora:none>"}, "is not in"),
        ({"prompt": "x", "lora_folder": 7}, "lora_folder is 7; give the folder"),
        ({"prompt": 7}, "prompt"),
        ({"prompt": [7]}, "prompt is 7"),
        ({"prompt": "x", "loras": {"a": (1, 2, 3)}}, "give one number, or two"),
        ({"prompt": "x", "loras": {"a": (1, "b")}}, "weight of LoRA 'a' is 'b'"),
    ],
)
def test_each_wrong_value_is_told(folder: Path, options: dict[str, object], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        resolve({"lora_folder": str(folder), **options}, MODELS)


def test_a_use_counts_alike_everywhere_unless_it_says_otherwise() -> None:
    use = LoraUse(file="a", weight=0.5)
    assert {use.weight_in(name) for name in ("base/unet", "text_encoder")} == {0.5}
