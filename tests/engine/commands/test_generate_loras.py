"""LoRAs by name on the command line: used, written into the picture, and found again by --like."""

import json
from pathlib import Path

import pytest

from pocketxl.engine.adapters.layers import unet_layers
from pocketxl.engine.folder.manifest import read_manifest
from pocketxl.engine.picture.files import read_picture

from ...fixtures.adapters import kohya, lora, write
from ...fixtures.command_line import run

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tiny_engine: Path, tmp_path: Path) -> Path:
    """One LoRA, `style`, of the tiny base's attention."""
    unet = read_manifest(tiny_engine).models.denoisers["base"].unet
    layers = [layer for layer in unet_layers(unet, "base") if layer.name.endswith(("to_q", "to_v"))]
    root = tmp_path / "loras"
    root.mkdir()
    write(root / "style.safetensors", lora(layers, kohya("lora_unet"), alpha=0.05))
    return root


def pixels(file: Path) -> bytes:
    from PIL import Image

    with Image.open(file) as picture:
        return picture.tobytes()


def test_a_lora_by_name_from_prompt_to_picture_and_back(
    capsys: Capture, tiny_engine: Path, folder: Path, tmp_path: Path
) -> None:
    base = ("--engine", tiny_engine, "--steps", "2", "--width", "64", "--height", "64", "--quiet")
    plain, styled, again, without = (tmp_path / f"{name}.png" for name in ("plain", "styled", "again", "without"))
    tag = "<lora:style:0.8>"
    run(capsys, "generate", "a fox", "-o", plain, "--seed", "1", *base)
    shown = run(capsys, "generate", f"a fox {tag}", "--lora-folder", folder, "-o", styled, "--seed", "1", *base)
    assert shown.status == 0, shown.err
    assert pixels(plain) != pixels(styled)
    parameters = read_picture(styled).parameters or ""
    told = json.loads(run(capsys, "inspect", "--json", folder / "style.safetensors").out)
    assert parameters.startswith(f"a fox {tag}\n")
    assert f'Lora hashes: "style: {told["lora_hash"]}"' in parameters
    shown = run(capsys, "generate", "--like", styled, "--lora-folder", folder, "-o", again, *base)
    assert (shown.status, pixels(again)) == (0, pixels(styled))
    # Without the folder the tag was a LoRA all the same, and no words.
    loud = base[:-1]
    shown = run(capsys, "generate", "--like", styled, "-o", without, *loud)
    assert "left out, because it is unknown here: Lora hashes (style; give --lora-folder)" in shown.err
    assert pixels(without) == pixels(plain)


def test_another_file_of_the_same_name_is_told(
    capsys: Capture, tiny_engine: Path, folder: Path, tmp_path: Path
) -> None:
    base = ("--engine", tiny_engine, "--steps", "1", "--width", "64", "--height", "64", "--lora-folder", folder)
    run(capsys, "generate", "a fox <lora:style:0.8>", "-o", tmp_path / "a.png", "--seed", "1", *base)
    file = folder / "style.safetensors"
    unet = read_manifest(tiny_engine).models.denoisers["base"].unet
    write(file, lora(list(unet_layers(unet, "base"))[:1], kohya("lora_unet"), alpha=0.01))
    shown = run(capsys, "generate", "--like", tmp_path / "a.png", "-o", tmp_path / "b.png", *base)
    assert "other files than the picture was made with: style" in shown.err


def test_a_name_that_is_not_there_is_one_error(capsys: Capture, tiny_engine: Path, folder: Path) -> None:
    shown = run(capsys, "generate", "<lora:stile:1>", "--lora-folder", folder, "--engine", tiny_engine)
    assert "LoRA 'stile' of the prompt is not in" in shown.complaint()
    assert shown.status == 2
