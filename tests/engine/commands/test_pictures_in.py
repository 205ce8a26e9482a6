"""Pictures as input from the command line: files, settings inside what is made, and `--like`."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pocketxl.engine.folder.manifest import FILE_NAME, read_manifest
from pocketxl.engine.picture.files import read_settings, write_picture
from pocketxl.engine.picture.infotext import parse
from pocketxl.engine.pipeline import Pipeline

from ...fixtures.command_line import Shown, run
from ...fixtures.painters import landscape, window

FROM_A1111 = """a red apple
Steps: 4, Sampler: Euler, CFG scale: 5, Seed: 9, Size: 64x64, Model: x, Denoising strength: 0.5, Mask blur: 4"""


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "given.png"
    landscape(72, 64).save(path)
    return path


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    path = tmp_path / "mask.png"
    window(72, 64).save(path)
    return path


def generate(capsys: pytest.CaptureFixture[str], engine: Path, *rest: str | Path) -> Shown:
    return run(capsys, "generate", *rest, "--engine", engine, "--threads", "1", "--quiet")


def test_a_picture_is_made_from_a_picture_and_says_so(
    tiny_engine: Path, picture: Path, mask: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = (
        "--steps",
        "4",
        "--seed",
        "3",
        "--image",
        picture,
        "--mask",
        mask,
        "--strength",
        "0.75",
        "--mask-blur",
        "2",
    )
    shown = generate(
        capsys, tiny_engine, "a red cat", "-o", tmp_path / "made.png", *flags, "--mask-blur", "2", "--paste-back"
    )
    assert shown.status == 0, shown.err
    settings = read_settings(tmp_path / "made.png")
    assert settings["Denoising strength"] == "0.75"
    assert settings["Mask blur"] == "2"
    assert settings["Paste back"] == "True"
    assert settings["Size"] == "72x64"
    assert len(settings["Init image hash"]) == len(settings["Mask hash"]) == 64
    with Pipeline.load(tiny_engine, threads=1) as pipe:
        made = pipe("a red cat", image=landscape(72, 64), mask_image=window(72, 64), strength=0.75, mask_blur=2.0,
                    paste_back=True, seed=3, num_inference_steps=4)  # fmt: skip
    assert made.settings()["Init image hash"] == settings["Init image hash"]
    assert np.array_equal(made.pixels(), np.asarray(Image.open(tmp_path / "made.png")))
    # The same again, which asks for what it was made from.
    again = ("--like", tmp_path / "made.png", "-o", tmp_path / "again.png")
    assert "was made from a picture, which it does not hold; give it with --image FILE" in (
        generate(capsys, tiny_engine, *again).complaint()
    )
    assert "give it with --mask FILE" in generate(capsys, tiny_engine, *again, "--image", picture).complaint()
    shown = generate(capsys, tiny_engine, *again, "--image", picture, "--mask", mask)
    assert (shown.status, shown.err) == (0, "")
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "made.png").read_bytes()


def test_like_says_when_the_picture_is_another(
    tiny_engine: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--steps", "2", "--image", picture, "--strength", "0.5")
    assert generate(capsys, tiny_engine, "a cat", "-o", tmp_path / "made.png", *flags).status == 0
    landscape(72, 64, seed=4).save(tmp_path / "other.png")
    shown = run(
        capsys, "generate", "--like", tmp_path / "made.png", "--image", tmp_path / "other.png", "-o",
        tmp_path / "x.png", "--engine", tiny_engine, "--threads", "1", "--json",
    )  # fmt: skip
    (warning,) = [event for event in shown.events() if event["event"] == "warning"]
    assert warning["message"] == "--image is not what the picture was made from: its pixels are others"


def test_a_second_pass_is_told_and_made_again(
    tiny_engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--steps", "4", "--seed", "3", "--width", "64", "--height", "64", "--hires-scale", "1.5"]
    flags += ("--hires-steps", "2", "--hires-strength", "0.5", "--hires-upscaler", "lanczos")
    shown = generate(capsys, tiny_engine, "a red cat", "-o", tmp_path / "made.png", *flags)
    assert shown.status == 0, shown.err
    settings = read_settings(tmp_path / "made.png")
    told = {
        key: settings[key] for key in ("Size", "Denoising strength", "Hires upscale", "Hires steps", "Hires upscaler")
    }
    assert told == {
        "Size": "64x64",
        "Denoising strength": "0.5",
        "Hires upscale": "1.5",
        "Hires steps": "2",
        "Hires upscaler": "Lanczos",
    }
    assert Image.open(tmp_path / "made.png").size == (96, 96)
    shown = generate(capsys, tiny_engine, "--like", tmp_path / "made.png", "-o", tmp_path / "again.png")
    assert (shown.status, shown.err) == (0, "")
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "made.png").read_bytes()


def test_another_program_s_picture_out_of_a_picture_asks_for_it_too(
    tiny_engine: Path, picture: Path, mask: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_picture(tmp_path / "foreign.png", np.zeros((8, 8, 3), np.uint8), parse(FROM_A1111))
    like = ("--like", tmp_path / "foreign.png", "-o", tmp_path / "x.png")
    assert "give it with --image FILE" in generate(capsys, tiny_engine, *like).complaint()
    shown = generate(capsys, tiny_engine, *like, "--image", picture, "--mask", mask)
    assert shown.status == 0, shown.err
    assert read_settings(tmp_path / "x.png")["Denoising strength"] == "0.5"


def test_the_refiner_alone(
    tiny_engine: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--image", picture, "--no-base", "--steps", "4", "-o", tmp_path / "made.png")
    assert generate(capsys, tiny_engine, "a cat", *flags).status == 0
    settings = read_settings(tmp_path / "made.png")
    assert settings["Base"] == "False"
    assert "Refiner" in settings


def test_plan_counts_the_encoder_where_a_picture_comes_in(
    tiny_engine: Path, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def phases(*flags: str | Path) -> dict[str, list[str]]:
        (event,) = run(capsys, "plan", tiny_engine, "--json", "--width", "64", "--height", "64", *flags).events()
        return {phase["phase"]: phase["resident"] for phase in event["phases"]}

    assert not any("vae_encoder" in resident for resident in phases().values())
    assert "vae_encoder" in phases("--image", picture)["encode picture"]
    assert "encode picture" in phases("--hires-scale", "2", "--hires-upscaler", "lanczos")


def damaged(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_files_that_are_no_pictures(
    tiny_engine: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = picture.read_bytes()
    for path, status, words in (
        (tmp_path / "none.png", 5, "none.png cannot be read: No such file"),
        (tmp_path, 5, "cannot be read: Is a directory"),
        (damaged(tmp_path / "text.png", b"hello"), 6, "is no picture that Pillow knows"),
        (damaged(tmp_path / "empty.png", b""), 6, "is no picture that Pillow knows"),
        (damaged(tmp_path / "cut.png", whole[: len(whole) // 2]), 6, "cannot be decoded"),
    ):
        shown = generate(capsys, tiny_engine, "a cat", "--image", path, "-o", tmp_path / "x.png")
        assert (shown.status, words in shown.complaint()) == (status, True), shown.err
    assert not (tmp_path / "x.png").exists()


def test_a_mask_of_another_size(
    tiny_engine: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    window(64, 64).save(tmp_path / "small.png")
    flags = ("--image", picture, "--mask", tmp_path / "small.png", "-o", tmp_path / "x.png")
    shown = generate(capsys, tiny_engine, "a cat", *flags)
    assert shown.status == 2
    assert "mask_image is 64x64 and image 72x64; give them in one size" in shown.complaint()


def test_the_part_around_the_mask_alone(
    tiny_engine: Path, picture: Path, mask: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`Only masked` in AUTOMATIC1111: its names are in the picture, and `--like` takes padding and size from there."""
    made, again = tmp_path / "made.png", tmp_path / "again.png"
    given = ("--image", picture, "--mask", mask)
    size = ("--width", "64", "--height", "64", "--padding-mask-crop", "4")
    shown = generate(
        capsys, tiny_engine, "a red cat", "-o", made, *given, *size, "--steps", "4", "--seed", "3", "--no-refiner"
    )
    assert shown.status == 0, shown.err
    settings = read_settings(made)
    assert (settings["Inpaint area"], settings["Masked area padding"]) == ("Only masked", "4")
    assert (settings["Size"], Image.open(made).size) == ("64x64", (72, 64))
    assert generate(capsys, tiny_engine, "--like", made, "-o", again, *given).status == 0
    assert again.read_bytes() == made.read_bytes()
    plan = run(capsys, "plan", tiny_engine, *given, *size, "--json").events()[0]
    assert (plan["width"], plan["height"]) == (64, 64)


def test_an_engine_without_an_encoder_says_so_and_works_as_ever(
    tiny_engine: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As builds from a VAE that is a decoder alone, and those of before there were encoders, are."""
    engine = tmp_path / "engine"
    shutil.copytree(tiny_engine, engine)
    shutil.rmtree(engine / "vae_encoder")
    whole = read_manifest(tiny_engine)
    left = {name: entry for name, entry in whole.components.items() if name != "vae_encoder"}
    without = replace(whole, components=left, models=replace(whole.models, encodes=False))
    (engine / FILE_NAME).write_text(without.to_json())
    steps = ("--steps", "2", "--seed", "3", "--width", "64", "--height", "64")
    for flags in (("--image", picture), ("--hires-scale", "2", "--hires-upscaler", "lanczos")):
        shown = run(capsys, "generate", "a cat", "-o", tmp_path / "none.png", "--engine", engine, *steps, *flags)
        assert shown.status == 2
        assert "this engine has no VAE encoder" in shown.complaint()
        assert "build it again" in shown.complaint()
    assert not (tmp_path / "none.png").exists()
    made, ever = tmp_path / "made.png", tmp_path / "ever.png"
    assert generate(capsys, engine, "a cat", "-o", made, *steps).status == 0
    assert generate(capsys, tiny_engine, "a cat", "-o", ever, *steps).status == 0
    assert np.array_equal(np.asarray(Image.open(made)), np.asarray(Image.open(ever)))
