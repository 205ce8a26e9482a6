"""LoRAs in a picture's settings: AUTOMATIC1111's spelling, written and read back."""

from pocketxl.engine.picture import infotext
from pocketxl.engine.picture.lora_hashes import KEY, hashes_of, read_hashes, tags_of, without_tags
from pocketxl.engine.request.lora_tags import take_tags
from pocketxl.engine.request.loras import LoraUse

STYLE = LoraUse(file="style.safetensors", weight=0.8, name="style", short_hash="0123456789ab")
TWO = LoraUse(file="a", weight=0.5, text_weight=1.0, name="two weights", short_hash="ba9876543210")
TAGGED = LoraUse(file="b", weight=1.0, tagged=True, name="fox", short_hash="f" * 12)


def test_tags_of_what_the_prompt_does_not_name_read_back_as_they_were() -> None:
    written = tags_of([STYLE, TWO, TAGGED])
    assert written == " <lora:style:0.8> <lora:two weights:1:0.5>"
    assert [(tag.name, tag.text, tag.unet) for tag in take_tags(written)[1]] == [
        ("style", 0.8, 0.8),
        ("two weights", 1.0, 0.5),
    ]


def test_hashes_read_back_through_the_settings_of_a_picture() -> None:
    setting = hashes_of([STYLE, TAGGED])
    assert setting == {KEY: "style: 0123456789ab, fox: ffffffffffff"}
    settings = {"Prompt": "x", "Steps": "1", "Seed": "2", "Size": "8x8", **setting}
    text = infotext.write(settings)
    assert 'Lora hashes: "style: 0123456789ab, fox: ffffffffffff"' in text
    assert read_hashes(infotext.parse(text)) == {"style": "0123456789ab", "fox": "f" * 12}
    assert hashes_of([]) == {}


def test_hashes_of_other_programs_and_broken_ones() -> None:
    assert read_hashes({KEY: "a: 12, b:34,, c, : 5"}) == {"a": "12", "b": "34"}
    assert read_hashes({}) == {}


def test_a_name_with_the_marks_of_the_form_loses_them() -> None:
    strange = LoraUse(file="x", weight=1.0, name='a:b,c<d>"', short_hash="1" * 12)
    assert tags_of([strange]) == " <lora:abcd:1>"
    assert hashes_of([strange]) == {KEY: "abcd: 111111111111"}


def test_prompts_without_their_tags() -> None:
    assert without_tags("a fox <lora:style:0.8>") == ("a fox", True)
    assert without_tags("a fox ") == ("a fox ", False)
    assert without_tags("<lora:style:x>") == ("<lora:style:x>", False)
