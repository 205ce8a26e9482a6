"""What `generate` takes by name: presets, sizes, styles; each ends in the settings, and `--like` makes it again."""

from pathlib import Path

import pytest

from pocketxl.engine.picture.files import read_settings

from ...fixtures.command_line import Shown, run

SMALL = ("--width", "64", "--height", "64", "--seed", "3", "--threads", "1", "--quiet")


def generate(capsys: pytest.CaptureFixture[str], engine: Path, picture: Path, *rest: str | Path) -> dict[str, str]:
    shown = run(capsys, "generate", "--engine", engine, "-o", picture, "--overwrite", *rest)
    assert shown.status == 0, shown.err
    found: dict[str, str] = read_settings(picture)
    return found


def refused(capsys: pytest.CaptureFixture[str], engine: Path, *rest: str | Path) -> str:
    shown: Shown = run(capsys, "generate", "a cat", "--engine", engine, "-o", engine.parent / "none.png", *rest)
    assert not (engine.parent / "none.png").exists()
    return shown.complaint()


def test_a_preset_is_in_the_settings_and_comes_back(
    capsys: pytest.CaptureFixture[str], tiny_engine: Path, tmp_path: Path
) -> None:
    found = generate(capsys, tiny_engine, tmp_path / "a.png", "a cat", "--preset", "dmd2", *SMALL)
    assert {key: found.get(key) for key in ("Steps", "Sampler", "CFG scale", "Timesteps", "Refiner")} == {
        "Steps": "4", "Sampler": "LCM", "CFG scale": "1", "Timesteps": "999 749 499 249", "Refiner": None,
    }  # fmt: skip
    again = generate(capsys, tiny_engine, tmp_path / "b.png", "--like", tmp_path / "a.png", "--threads", "1")
    assert again == found
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_flags_count_over_a_preset_and_a_preset_over_a_picture(
    capsys: pytest.CaptureFixture[str], tiny_engine: Path, tmp_path: Path
) -> None:
    flags = ("--preset", "tcd", "--steps", "2", "--guidance-scale", "2", "--guidance-end", "0.5", *SMALL)
    found = generate(capsys, tiny_engine, tmp_path / "a.png", "a cat", *flags)
    told = ("Steps", "Sampler", "CFG scale", "Eta", "Guidance end")
    assert [found[key] for key in told] == ["2", "TCD", "2", "0.3", "0.5"]
    like = ("--like", tmp_path / "a.png", "--preset", "lightning-2", "--threads", "1")
    other = generate(capsys, tiny_engine, tmp_path / "b.png", *like)
    assert [other.get(key) for key in ("Steps", "Sampler", "Schedule type", "CFG scale", "Eta", "Seed")] == [
        "2", "Euler", "SGM Uniform", "1", None, "3",
    ]  # fmt: skip


def test_sizes_by_name_and_in_pixels(capsys: pytest.CaptureFixture[str], tiny_engine: Path, tmp_path: Path) -> None:
    rest = ("a cat", "--steps", "1", "--no-refiner", "--threads", "1", "--quiet")
    named = generate(capsys, tiny_engine, tmp_path / "a.png", *rest, "--size", "portrait")
    assert named == generate(capsys, tiny_engine, tmp_path / "b.png", *rest, "--aspect", "2:3", "--seed", named["Seed"])
    width, height = map(int, named["Size"].split("x"))
    assert width < height
    assert generate(capsys, tiny_engine, tmp_path / "c.png", *rest, "--size", "72X64")["Size"] == "72x64"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--preset", "lightening"), "lightning-4"),
        (("--size", "potrait"), "did you mean 'portrait'"),
        (("--size", "100x64"), "use 96 or 104"),
        (("--size", "64"), "not a bucket"),
        (("--size", "64x64", "--width", "64"), "one or the other"),
        (("--size", "square", "--aspect", "1:1"), "one or the other"),
        (("--style", "sketch"), "--styles-file"),
        (("--styles-file", "none.csv", "--style", "sketch"), "none.csv is no file"),
        (("--guidance-start", "0.5", "--guidance-end", "0.4"), "below the second"),
    ],
)
def test_refusals(capsys: pytest.CaptureFixture[str], tiny_engine: Path, flags: tuple[str, ...], said: str) -> None:
    assert said in refused(capsys, tiny_engine, *flags)


def test_styles_go_around_both_prompts(capsys: pytest.CaptureFixture[str], tiny_engine: Path, tmp_path: Path) -> None:
    styles = tmp_path / "styles.csv"
    styles.write_text('name,prompt,negative_prompt\nsketch,"a (sketch:1.2) of {prompt}",photo\nrough,rough lines,\n')
    rest = ("--styles-file", styles, "--style", "Sketch", "--style", "rough", "--steps", "1", "--no-refiner", *SMALL)
    found = generate(capsys, tiny_engine, tmp_path / "a.png", "a cat", *rest)
    assert (found["Prompt"], found["Negative prompt"]) == ("a (sketch:1.2) of a cat, rough lines", "photo")
    both = generate(capsys, tiny_engine, tmp_path / "b.png", "a cat", "--negative-prompt", "blurry", *rest)
    assert both["Negative prompt"] == "blurry, photo"
    literal = generate(capsys, tiny_engine, tmp_path / "c.png", "a [cat]", "--literal", *rest)
    assert literal["Prompt"] == "a \\(sketch:1.2\\) of a \\[cat\\], rough lines"
    assert "style 'ink'" in refused(capsys, tiny_engine, "--styles-file", styles, "--style", "ink")
    assert "none is chosen" in refused(capsys, tiny_engine, "--styles-file", styles)
