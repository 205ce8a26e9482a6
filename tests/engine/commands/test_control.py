"""`--control`: pictures that are steered from the command line, and made again by `--like`."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pocketxl.engine.commands.control import Controls
from pocketxl.engine.commands.steering import names_of, parsed
from pocketxl.engine.errors import RequestError
from pocketxl.engine.picture.files import read_settings

from ...fixtures.command_line import Shown, run
from ...fixtures.controlnets import edges

Folders = Mapping[str, tuple[Path, Path]]
SIZE = ("--width", 64, "--height", 64, "--steps", 2, "--no-refiner", "--seed", 3)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.fromarray(edges(80, 60)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def generate(capsys: pytest.CaptureFixture[str], engine: Path, *more: object) -> Shown:
    words = ("generate", "a red cat", "--engine", engine, "--quiet", *more)
    return run(capsys, *(str(word) for word in words))


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def test_a_picture_is_steered_and_says_by_what_and_is_made_again(
    capsys: pytest.CaptureFixture[str], tiny_engine: Path, tiny_controlnets: Folders, photo: Path, tmp_path: Path
) -> None:
    folder = tiny_controlnets["canny"][1]
    first, again, plain = (tmp_path / f"{name}.png" for name in ("first", "again", "plain"))
    control = ("--control-preprocess", "canny", "--control-end", "0.5")
    made = generate(capsys, tiny_engine, *SIZE, "--control", f"{folder}={photo}:0.7", *control, "-o", first)
    assert made.status == 0, made.err
    said = read_settings(first)["ControlNet 0"]
    assert said.startswith("Module: canny, Model: canny [")
    assert said.endswith("Weight: 0.7, Resize Mode: Just Resize, Guidance Start: 0, Guidance End: 0.5")
    like = ("--like", first, "--control", f"{folder}={photo}", "-o", again)
    assert generate(capsys, tiny_engine, *like).status == 0
    assert (pixels(again) == pixels(first)).all()
    assert generate(capsys, tiny_engine, *SIZE, "-o", plain).status == 0
    assert (pixels(plain) != pixels(first)).any()
    assert "ControlNet 0" not in read_settings(plain)


def test_like_says_that_the_hint_is_not_inside(
    capsys: pytest.CaptureFixture[str], tiny_engine: Path, tiny_controlnets: Folders, photo: Path, tmp_path: Path
) -> None:
    folder = tiny_controlnets["canny"][1]
    generate(capsys, tiny_engine, *SIZE, "--control", f"{folder}={photo}", "-o", tmp_path / "a.png")
    words = ("generate", "--like", tmp_path / "a.png", "--engine", tiny_engine, "-o", tmp_path / "b.png", "--json")
    shown = run(capsys, *map(str, words))
    messages = [event["message"] for event in shown.events() if event["event"] == "warning"]
    assert any("not inside; give --control for ControlNet 0" in message for message in messages)


def test_the_plan_has_it(
    capsys: pytest.CaptureFixture[str], tiny_engine: Path, tiny_controlnets: Folders, photo: Path
) -> None:
    shown = run(capsys, "plan", str(tiny_engine), "--control", f"{tiny_controlnets['canny'][1]}={photo}")
    assert shown.status == 0
    assert "hint canny" in shown.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--control", "canny"), "give FOLDER=PICTURE"),
        (("--control", "=x.png"), "give FOLDER=PICTURE"),
        (("--control-end", "0.5"), "--control-end was given without --control"),
        (("--control", "nowhere=x.png"), "is not an engine folder"),
    ],
)
def test_what_is_wrong_is_one_line(
    capsys: pytest.CaptureFixture[str], tiny_engine: Path, arguments: tuple[str, ...], words: str
) -> None:
    assert words in generate(capsys, tiny_engine, *arguments).complaint()


# Lone surrogates are in no name that a file system takes.
TEXT = st.text(st.characters(exclude_characters="=\0", exclude_categories=["Cs"]), min_size=1)


@given(TEXT, TEXT.filter(lambda text: ":" not in text), st.floats(0, 10))
def test_folder_picture_and_scale_are_told_apart(folder: str, picture: str, scale: float) -> None:
    assert parsed("--control", f"{folder}={picture}:{scale}") == (folder, picture, scale)
    assert parsed("--control", f"{folder}={picture}") == (folder, picture, None)
    assert parsed("--control", f"{folder}=C:\\{picture}x") == (folder, f"C:\\{picture}x", None)


def given_flags(**flags: object) -> Controls:
    from argparse import Namespace

    none: dict[str, object] = {"control": [], "control_type": [], "ip_adapter": None, "t2i_adapter": []}
    shares = dict.fromkeys(
        ("control_preprocess", "control_start", "control_end", "t2i_adapter_factor", "t2i_adapter_preprocess")
    )
    return Controls(Namespace(**{**none, **shares, "upscaler": None, **flags}))


def test_one_union_has_several_pictures_at_once() -> None:
    found = given_flags(control=["u=a.png:0.7", "c=b.png", "u=d.png"], control_type=["canny", "none", "depth"])
    assert found.folders["controlnets"] == {"u": "u", "c": "c"}
    options = found.options
    assert options["control_image"] == {"u": ["a.png", "d.png"], "c": "b.png"}
    assert options["control_mode"] == {"u": ["canny", "depth"], "c": None}
    assert options["controlnet_conditioning_scale"] == {"u": [0.7, None], "c": None}


def test_one_type_is_for_every_union() -> None:
    assert given_flags(control=["u=a.png", "c=b.png"], control_type=["canny"]).options["control_mode"] == "canny"
    with pytest.raises(RequestError, match="--control-type was given 2 times for 3 --control"):
        given_flags(control=["u=a.png"] * 3, control_type=["canny", "depth"])


def test_a_union_is_steered_and_says_of_what_kind_and_is_made_again(
    capsys: pytest.CaptureFixture[str], tiny_engine: Path, tiny_union_folder: Path, photo: Path, tmp_path: Path
) -> None:
    first, again = tmp_path / "first.png", tmp_path / "again.png"
    control = ("--control", f"{tiny_union_folder}={photo}:0.7", "--control-type", "lineart")
    made = generate(capsys, tiny_engine, *SIZE, *control, "-o", first)
    assert made.status == 0, made.err
    assert read_settings(first)["ControlNet 0"].endswith("Guidance End: 1, Union Control Type: canny")
    like = ("--like", first, "--control", f"{tiny_union_folder}={photo}", "-o", again)
    assert generate(capsys, tiny_engine, *like).status == 0
    assert (pixels(again) == pixels(first)).all()


def test_a_t2i_adapter_steers_and_says_by_what_and_is_made_again(
    capsys: pytest.CaptureFixture[str], tiny_engine: Path, tiny_t2i_adapters: Folders, photo: Path, tmp_path: Path
) -> None:
    folder, (first, again) = tiny_t2i_adapters["sketch"][1], (tmp_path / "first.png", tmp_path / "again.png")
    flags = ("--t2i-adapter", f"{folder}={photo}:0.7", "--t2i-adapter-factor", 0.5, "--t2i-adapter-preprocess", "canny")
    made = generate(capsys, tiny_engine, *SIZE, *flags, "-o", first)
    assert made.status == 0, made.err
    said = read_settings(first)["T2I-Adapter 0"]
    assert said.startswith("Module: canny, Model: sketch [")
    assert said.endswith("Weight: 0.7, Guidance End: 0.5")
    like = ("--like", first, "--t2i-adapter", f"{folder}={photo}", "-o", again)
    assert generate(capsys, tiny_engine, *like).status == 0
    assert (pixels(again) == pixels(first)).all()
    words = ("generate", "--like", first, "--engine", tiny_engine, "-o", tmp_path / "b.png", "--json")
    messages = [event["message"] for event in run(capsys, *words).events() if event["event"] == "warning"]
    assert any("not inside; give --t2i-adapter for T2I-Adapter 0" in message for message in messages)
    assert not any("left out" in message or "--control" in message for message in messages)
    shown = run(capsys, "plan", str(tiny_engine), "--t2i-adapter", f"{folder}={photo}")
    assert "features sketch" in shown.out


@given(st.lists(TEXT, max_size=5))
def test_each_has_a_name_of_its_own_that_a_pipeline_takes(folders: list[str]) -> None:
    from pocketxl.engine.control.folders import _NAME

    names = names_of(folders)
    assert len(set(names)) == len(folders)
    assert all(_NAME.fullmatch(name) for name in names)


def test_nothing_asked_is_nothing_given() -> None:
    assert given_flags().options == {}
    assert given_flags().folders == {"controlnets": {}, "ip_adapter": None, "t2i_adapters": {}, "upscaler": None}
    for flag in ({"control_start": 0.1}, {"t2i_adapter_factor": 0.5}, {"control_type": ["canny"]}):
        with pytest.raises(RequestError, match="was given without --"):
            given_flags(**flag)
