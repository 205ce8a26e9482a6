"""`pocketxl upscale`, and `--upscaler` of `generate` and `plan`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pocketxl.engine.picture.files import read_settings, write_picture
from pocketxl.engine.upscaling.upscaler import Upscaler
from pocketxl.export.companions.upscaler import build_upscaler
from pocketxl.export.reference.steered import colours

from ...fixtures.command_line import run
from ...fixtures.upscalers import compact, write_upscaler


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "given.png"
    write_picture(path, colours(24, 40), {"Prompt": "a red cat", "Steps": "4", "Size": "40x24", "Seed": "7"})
    return path


def test_a_picture_becomes_larger_and_keeps_its_settings(
    tiny_upscaler: tuple[Any, Path], picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, folder = tmp_path / "out.png", tiny_upscaler[1]
    flags = ("--upscaler", folder, "--threads", "1")
    assert run(capsys, "upscale", picture, "-o", out, *flags, "--quiet").status == 0
    assert Image.open(out).size == (160, 96)
    told = read_settings(out)
    assert (told["Prompt"], told["Steps"], told["Postprocess upscale by"]) == ("a red cat", "4", "4")
    assert told["Postprocess upscaler"] == "4x-small"
    with Upscaler.load(folder, threads=1) as upscaler:
        assert np.array_equal(np.asarray(Image.open(out)), upscaler(colours(24, 40), output_type="np"))
    Image.fromarray(colours(24, 40)).save(tmp_path / "plain.bmp")
    shown = run(
        capsys, "upscale", tmp_path / "plain.bmp", "-o", tmp_path / "out.jpg", "--scale", "1.5", *flags, "--json"
    )
    *progress, made = shown.events()
    assert {event["stage"] for event in progress} == {"upscale"}
    assert (made["width"], made["height"]) == (60, 36)


def test_what_it_would_take_is_told_without_making_it(
    tiny_upscaler: tuple[Any, Path], picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("-o", tmp_path / "out.png", "--upscaler", tiny_upscaler[1], "--plan")
    assert "predicted peak for 160x96: " in run(capsys, "upscale", picture, *flags).out
    assert run(capsys, "upscale", picture, *flags, "--json").events()[0]["peak_bytes"] > 150 << 20
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    ("flags", "status", "says"),
    [
        (("--scale", "99"), 2, "scale is 99; it must be 1 to 16"),
        (("--upscaler", "none"), 6, "none/engine.json is missing"),
        (("-o", "out.gif"), 2, "out.gif must end in"),
        (("--quality", "50"), 2, "--quality is for .jpg and .webp"),
    ],
)
def test_a_mistake_is_one_line(
    flags: tuple[str, ...], status: int, says: str, tiny_upscaler: tuple[Any, Path], picture: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    shown = run(capsys, "upscale", picture, "-o", tmp_path / "out.png", "--upscaler", tiny_upscaler[1], *flags)
    assert shown.status == status
    assert says in shown.complaint()


def test_generate_enlarges_by_it_and_like_asks_for_it(
    tiny_engine: Path, tiny_upscaler: tuple[Any, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_upscaler[1]
    engine = ("--engine", tiny_engine, "--threads", "1")
    size = ("--steps", "2", "--seed", "3", "--width", "64", "--height", "64", "--no-refiner")
    first, again, other = (tmp_path / f"{name}.png" for name in ("first", "again", "other"))
    made = run(capsys, "generate", "a cat", *engine, *size, "--upscale", "1.5", "--upscaler", folder, "-o", first)
    assert made.status == 0, made.err
    assert (Image.open(first).size, read_settings(first)["Hires upscaler"]) == ((96, 96), "4x-small")
    assert run(capsys, "generate", "--like", first, *engine, "--upscaler", folder, "-o", again).status == 0
    assert again.read_bytes() == first.read_bytes()
    without = run(capsys, "generate", "--like", first, *engine, "-o", other)
    assert without.status == 0
    assert "left out, because it is unknown here: Hires upscaler 4x-small (give --upscaler)" in without.err
    source = write_upscaler(tmp_path / "file.safetensors", compact(num_conv=1).state_dict())
    small = build_upscaler(source, tmp_path / "another").folder
    warned = run(capsys, "generate", "--like", first, *engine, "--upscaler", small, "-o", tmp_path / "warned.png")
    assert "--upscaler is not what the picture was enlarged by" in warned.err


def test_an_upscaler_for_nothing_is_an_error(
    tiny_engine: Path, tiny_upscaler: tuple[Any, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--engine", tiny_engine, "--upscaler", tiny_upscaler[1])
    assert "without --hires-scale; say how much" in run(capsys, "generate", "a cat", *flags).complaint()
    both = ("--hires-scale", "2", "--hires-upscaler", "lanczos")
    assert "--hires-upscaler lanczos were both given" in run(capsys, "generate", "a cat", *flags, *both).complaint()
    plan = run(capsys, "plan", tiny_engine, "--upscaler", tiny_upscaler[1], "--hires-scale", "2", "--json")
    assert "upscale" in [phase["phase"] for phase in plan.events()[0]["phases"]]
