"""Everything that a prompt can be, from the command line, and the same picture again from what it says of itself."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from pocketxl.engine.folder.manifest import read_manifest
from pocketxl.engine.picture.files import read_settings

from ...fixtures.command_line import Shown, run

SHORT = ("--steps", "3", "--threads", "1", "--seed", "4")


@pytest.fixture
def folder(tmp_path: Path, tiny_engine: Path) -> Path:
    """Wildcards and embeddings."""
    encoders = read_manifest(tiny_engine).models.text_encoders
    noise = np.random.default_rng(2)
    sides = (("clip_l", "text_encoder"), ("clip_g", "text_encoder_2"))
    tensors = {key: noise.standard_normal((2, encoders[name].hidden_size), np.float32) * 0.1 for key, name in sides}
    save_file({key: value.astype(np.float32) for key, value in tensors.items()}, tmp_path / "mystyle.safetensors")
    (tmp_path / "animal.txt").write_text("cat\ndog\n")
    return tmp_path


def generate(capsys: pytest.CaptureFixture[str], engine: Path, *arguments: str | Path) -> Shown:
    return run(capsys, "generate", "--engine", engine, "--quiet", *arguments)


def test_all_of_it_comes_back_from_the_picture(
    folder: Path, tiny_engine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, again = folder / "first.png", folder / "again.png"
    prompt = "a {red|blue} [sky:__animal__:0.5] BREAK (mystyle:1.2), [a|b]"
    given = ("--negative-prompt", "[dog|sky]", "--wildcard-folder", folder, "--embedding-folder", folder)
    shown = generate(capsys, tiny_engine, prompt, *given, *SHORT, "-o", first)
    assert shown.status == 0, shown.err
    settings = read_settings(first)
    assert settings["Template"] == prompt
    assert "{" not in settings["Prompt"]
    assert "__" not in settings["Prompt"]
    assert settings["TI hashes"].startswith("mystyle: ")
    rest = ("--embedding-folder", folder, "--threads", "1", "-o", again)
    shown = generate(capsys, tiny_engine, "--like", first, *rest)
    assert (shown.status, shown.err) == (0, "")
    lost = {"Template"}  # the prompt is no template any more
    after = read_settings(again)
    assert after == {name: value for name, value in settings.items() if name not in lost}
    assert Image.open(first).tobytes() == Image.open(again).tobytes()


def test_each_of_several_pictures_has_its_own_prompt(
    folder: Path, tiny_engine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder / "out"
    shown = generate(
        capsys, tiny_engine, "{a|b|c|d|e|f|g|h}", "--dynamic", *SHORT, "--steps", "1", "-n", "3", "-o", f"{out}/"
    )
    assert shown.status == 0, shown.err
    prompts = [read_settings(path)["Prompt"] for path in sorted(out.iterdir())]
    assert len(prompts) == 3
    assert len(set(prompts)) > 1


def test_embeddings_that_are_not_here_are_told(
    folder: Path, tiny_engine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = folder / "first.png"
    rest = (*SHORT, "--steps", "1", "--no-refiner")
    assert generate(capsys, tiny_engine, "a mystyle", "--embedding-folder", folder, *rest, "-o", first).status == 0
    shown = run(capsys, "generate", "--engine", tiny_engine, "--like", first, *rest, "-o", folder / "again.png")
    assert shown.status == 0
    assert "made with the embeddings mystyle, which are not here as they were; --embedding-folder names" in shown.err


def test_literal_takes_all_of_it_as_words(folder: Path, tiny_engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "a {red|blue} __animal__ [sky:dog:1] BREAK (mystyle:1.2)"
    rest = ("--embedding-folder", folder, *SHORT, "--steps", "1", "--no-refiner")
    one, two = folder / "one.png", folder / "two.png"
    assert generate(capsys, tiny_engine, text, "--literal", *rest, "-o", one).status == 0
    settings = read_settings(one)
    assert settings["Prompt"] == r"a {red|blue} __animal__ \[sky:dog:1\] \BREAK \(\mystyle:1.2\)"
    assert "TI hashes" not in settings
    assert generate(capsys, tiny_engine, "--like", one, *rest, "-o", two).status == 0
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("a {b|c}", "--literal", "--dynamic"), "--literal and --dynamic were both given"),
        (("a __zebra__", "--wildcard-folder", "."), "__zebra__ is no wildcard"),
        (("a", "--embedding-folder", "/no/where"), "embedding_folder /no/where is no folder"),
    ],
)
def test_what_cannot_be_is_one_line(
    flags: tuple[str, ...], says: str, tiny_engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = generate(capsys, tiny_engine, *flags, "-o", tmp_path / "x.png")
    assert shown.status == 2
    assert says in shown.complaint()
