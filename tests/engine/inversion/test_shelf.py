"""Names of embeddings in texts: where they are found, and where words stay words."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from pocketxl.engine.errors import RequestError
from pocketxl.engine.folder.manifest import read_manifest
from pocketxl.engine.inversion.shelf import Embeddings, embeddings_in
from pocketxl.engine.miniature import FOLDER
from pocketxl.engine.request.prompt import BREAK
from pocketxl.engine.request.texts import Texts

from ...fixtures.growth import assert_linear

MODELS = read_manifest(FOLDER).models
NAMES = ("easynegative", "sub/bad-hands 5", "bad", "Café v1.2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("embeddings")
    for name in NAMES:
        path = found / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        sides = zip(("clip_l", "clip_g"), MODELS.text_encoders.values(), strict=True)
        save_file({key: np.ones((2, encoder.hidden_size), np.float32) for key, encoder in sides}, path)
    return found


@pytest.fixture(scope="module")
def shelf(folder: Path) -> Embeddings:
    return Embeddings(folder=folder, models=MODELS)


def shown(shelf: Embeddings, text: str) -> list[str]:
    """Words as they are, embeddings in angle brackets."""
    return [piece if isinstance(piece, str) else f"<{piece.name}>" for piece in shelf.split(text)]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", [""]),
        ("nothing here", ["nothing here"]),
        ("easynegative", ["<easynegative>"]),
        ("a EasyNegative, b", ["a ", "<easynegative>", ", b"]),
        ("embedding:easynegative, b", ["<easynegative>", ", b"]),
        ("a embedding:EASYNEGATIVE.safetensors b", ["a ", "<easynegative>", " b"]),
        ("easynegatives uneasynegative easynegative_2", ["easynegatives uneasynegative easynegative_2"]),
        ("bad-hands 5 bad-hands 6", ["<bad-hands 5>", " ", "<bad>", "-hands 6"]),
        ("café V1.2", ["<Café v1.2>"]),
        ("bad bad", ["<bad>", " ", "<bad>"]),
        (r"a \bad, \embedding:bad", ["a bad, embedding:bad"]),
        ("the embedding: of words", ["the embedding: of words"]),
        ("embedding:embedding:bad", ["embedding:", "<bad>"]),
        ("İ bad", ["İ ", "<bad>"]),
    ],
)
def test_names_are_found(shelf: Embeddings, text: str, pieces: list[str]) -> None:
    assert shown(shelf, text) == pieces


def test_a_name_that_is_not_there_is_told(shelf: Embeddings) -> None:
    with pytest.raises(RequestError, match=r"embedding:easynegativ is not in .*; did you mean easynegative\?"):
        shelf.split("embedding:easynegativ")
    with pytest.raises(RequestError, match=r"embedding:zzz is not in .*; it has bad, bad-hands 5, café v1.2, easyn"):
        shelf.split("embedding:zzz")


def test_a_folder_must_be_one(tmp_path: Path) -> None:
    assert embeddings_in(None, MODELS) is None
    with pytest.raises(RequestError, match="is no folder"):
        embeddings_in(tmp_path / "nope", MODELS)
    with pytest.raises(RequestError, match="embedding_folder is '3'"):
        embeddings_in(3, MODELS)


def test_a_link_out_of_the_folder_is_not_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside.safetensors").symlink_to(folder / "bad.safetensors")
    assert shown(Embeddings(folder=tmp_path, models=MODELS), "outside") == ["outside"]


PIECES = ("bad", "easynegative", "embedding:", "\\", "(", "[", " ", ":", "x", "|", "BREAK", ".safetensors")
WORDS = st.lists(st.sampled_from(PIECES), max_size=10).map("".join)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(WORDS)
def test_literal_texts_are_words_and_come_back_from_what_is_written(shelf: Embeddings, text: str) -> None:
    literal = Texts(literal=True, steps=4, embeddings=shelf).text("prompt", text)
    assert literal.runs == ((text, 1.0),)
    again = Texts(literal=False, steps=4, embeddings=shelf).text("prompt", literal.given)
    assert again.runs == ((text, 1.0),)


def test_weights_and_changes_hold_for_names(shelf: Embeddings) -> None:
    text = Texts(literal=False, steps=4, embeddings=shelf).text("prompt", "a (bad x:1.5) BREAK [x:easynegative:2]")
    first, last = ([(p if isinstance(p, str) else p.name, w) for p, w in text.at(step).runs] for step in (1, 4))
    assert first == [("a ", 1.0), ("bad", 1.5), (" x", 1.5), (" ", 1.0), BREAK, (" x", 1.0)]
    assert last == [*first[:-1], (" ", 1.0), ("easynegative", 1.0)]


@pytest.mark.parametrize("part", ["bad", "bad ", "embedding:", "\\bad", "b", "bad-"])
def test_hostile_text_takes_linear_time(shelf: Embeddings, part: str) -> None:
    def work(size: int) -> None:
        with suppress(RequestError):
            shelf.split(part * (size // len(part)))

    assert_linear(work, 4_000)
