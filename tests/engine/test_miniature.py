"""The bundled engine: whole, loaded by default, and trained enough to paint the background that it was asked for."""

from pathlib import Path

import numpy as np
import pytest

from pocketxl.engine import Pipeline
from pocketxl.engine.commands.main import main
from pocketxl.engine.folder.manifest import read_manifest, verify
from pocketxl.engine.miniature import FOLDER

# Named colour → the channel that must dominate (red, green, blue).
COLOURS = {"red": 0, "green": 1, "blue": 2}


def test_every_file_is_there_and_small() -> None:
    report = verify(FOLDER)
    assert report.bytes < 45e6
    assert set(read_manifest(FOLDER).models.denoisers) == {"base", "refiner"}


def test_the_build_s_own_figures_are_those_of_a_good_engine() -> None:
    manifest = read_manifest(FOLDER)
    assert manifest.recipe == "int8"
    assert manifest.quality["psnr_db"] > 30


@pytest.mark.parametrize("colour", COLOURS)
def test_it_paints_the_named_background(colour: str) -> None:
    with Pipeline.load() as pipe:
        picture = pipe(f"a panda on a {colour} background", num_inference_steps=12, seed=1, output_type="np").images[0]
    edge = np.concatenate([picture[:4].reshape(-1, 3), picture[-4:].reshape(-1, 3)])
    assert np.median(edge, axis=0).argmax() == COLOURS[colour]


def test_the_prompt_counts() -> None:
    with Pipeline.load() as pipe:
        apple, rocket = (
            pipe(f"a {name} on a white background", num_inference_steps=8, seed=2, output_type="np").images[0]
            for name in ("red apple", "rocket")
        )
    assert np.abs(apple - rocket).mean() > 0.02


def test_the_command_of_the_readme(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "apple.png"
    assert main(["generate", "a red apple on a blue background", "-o", str(out), "--seed", "7", "--steps", "4"]) == 0
    assert out.stat().st_size > 1000
    assert "seed 7" in capsys.readouterr().out
