"""`generate --like`: the same picture again, other flags over it, and pictures of other programs and models."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from pocketxl.engine.picture.files import read_settings, write_picture
from pocketxl.engine.picture.infotext import parse

from ...fixtures.command_line import Shown, run

FOREIGN = """a red (apple:1.1)
Negative prompt: blurry
Steps: 2, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 9, Size: 72x64, Model hash: 45dee52b,\
 Model: v1-5, Clip skip: 2, Lora hashes: "add_detail: 7c6bad76eb54, x: \\"y\\"",\
 Hires upscale: 2, ADetailer model: face, Version: v1.9.4"""


@pytest.fixture
def model(tiny_engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A picture of ours with many settings."""
    path = tmp_path / "model.png"
    shown = run(
        capsys, "generate", "a (red:1.2) apple", "--negative-prompt", "", "--engine", tiny_engine, "-o", path,
        "--steps", "2", "--sampler", "dpmpp_2m", "--schedule", "karras", "--width", "72", "--crop", "3 4",
        "--denoising-end", "0.6", "--prompt-2", "b: c", "--threads", "1",
    )  # fmt: skip
    assert shown.status == 0, shown.err
    return path


def foreign(tmp_path: Path, text: str = FOREIGN, suffix: str = ".jpg") -> Path:
    path = tmp_path / f"foreign{suffix}"
    write_picture(path, np.zeros((8, 8, 3), np.uint8), parse(text))
    return path


def like(capsys: pytest.CaptureFixture[str], engine: Path, picture: Path, *rest: str | Path) -> Shown:
    return run(capsys, "generate", "--like", picture, "--engine", engine, "--threads", "1", *rest)


def test_it_makes_the_same_picture(
    model: Path, tiny_engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = like(capsys, tiny_engine, model, "-o", tmp_path / "again.png", "--quiet")
    assert (shown.status, shown.err) == (0, "")
    assert (tmp_path / "again.png").read_bytes() == model.read_bytes()


def test_flags_count_instead(
    model: Path, tiny_engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = read_settings(model)
    flags = ("--width", "64", "--no-refiner", "--steps", "1", "--seed", "3")
    shown = like(capsys, tiny_engine, model, "a pear", "-o", tmp_path / "other.png", *flags)
    assert shown.status == 0, shown.err
    after = read_settings(tmp_path / "other.png")
    changed = {key for key in before | after if before.get(key) != after.get(key)}
    assert changed == {"Prompt", "Size", "Refiner", "Refiner switch at", "Steps", "Seed"}
    assert after["Prompt"] == "a pear"


def test_a_picture_of_another_program_gives_what_is_known(
    tiny_engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = like(capsys, tiny_engine, foreign(tmp_path), "-o", tmp_path / "x.png")
    assert shown.status == 0, shown.err
    left, other = shown.err.splitlines()[:2]
    assert left == "pocketxl: left out, because it is unknown here: ADetailer model"
    assert "made with v1-5 (45dee52b)" in other
    found = read_settings(tmp_path / "x.png")
    expected = parse(FOREIGN)
    for key in (
        "Prompt",
        "Negative prompt",
        "Steps",
        "Sampler",
        "Schedule type",
        "CFG scale",
        "Seed",
        "Size",
        "Hires upscale",
    ):
        assert found[key] == expected[key]
    assert "Refiner" not in found


def test_samplers_that_are_unknown_are_left_out(
    tiny_engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = FOREIGN.replace("DPM++ 2M", "DPM fast").replace("Karras", "Turbo")
    shown = like(capsys, tiny_engine, foreign(tmp_path, text, ".webp"), "-o", tmp_path / "x.png", "--json")
    warning = shown.events()[0]["message"]
    assert warning.endswith("ADetailer model, Sampler DPM fast, Schedule type Turbo")
    assert read_settings(tmp_path / "x.png")["Sampler"] == "Euler"


@pytest.mark.parametrize(
    ("text", "status", "says"),
    [
        (None, 2, "no settings inside"),
        (FOREIGN.replace("72x64", "many"), 2, "setting Size is 'many'"),
        (FOREIGN.replace("72x64", "73x64"), 2, "width is 73"),
    ],
    ids=["none", "unreadable", "odd"],
)
def test_a_picture_that_gives_no_call_is_told(
    text: str | None, status: int, says: str, tiny_engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "plain.png"
    write_picture(picture, np.zeros((8, 8, 3), np.uint8), None if text is None else parse(text))
    shown = like(capsys, tiny_engine, picture, "-o", tmp_path / "x.png", "--quiet")
    assert shown.status == status
    assert says in shown.complaint()
    assert not (tmp_path / "x.png").exists()


def test_the_engine_is_known_whatever_its_folder_is_called(
    model: Path, tiny_engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny_engine, tmp_path / "renamed", copy_function=os.link)
    shown = like(capsys, tmp_path / "renamed", model, "-o", tmp_path / "again.png", "--quiet")
    assert (shown.status, shown.err) == (0, "")
    before, after = read_settings(model), read_settings(tmp_path / "again.png")
    assert {key for key in before | after if before.get(key) != after.get(key)} == {"Model", "Refiner"}
    assert len(after["Model hash"]) == 10
