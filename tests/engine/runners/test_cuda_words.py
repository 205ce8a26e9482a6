"""Tokens to vectors, and the rows where texts end, on the host."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketxl.engine.errors import RequestError
from pocketxl.engine.inversion.read import TOKEN_EMBEDDINGS
from pocketxl.engine.program.program import Edge, Layout, Program, ValueSpec, Words
from pocketxl.engine.runners.cuda_words import WordTable

WORDS, TOKENS, WIDTH = 11, 5, 3
ROWS = np.arange((WORDS + TOKENS) * WIDTH, dtype=np.float16).reshape(-1, WIDTH)


def table(folder: Path, end: int | None = None, outputs: Iterable[str] = ("pooled",)) -> WordTable:
    path = folder / "words.bin"
    path.write_bytes(ROWS.tobytes())
    words = Words(words=WORDS, tokens=TOKENS, width=WIDTH, end=end)
    assert words.size == path.stat().st_size
    value = ValueSpec(name="ids", shape=("batch", "tokens", WIDTH))
    edges = tuple(
        Edge(tensor=name, layout=Layout.END_OF_TEXT, values=(ValueSpec(name=name, shape=value.shape),))
        for name in outputs
    )
    edge = Edge(tensor="input_ids", layout=Layout.WORDS, values=(value,), words=words)
    return WordTable(path, Program(inputs=(edge,), outputs=edges, calls=()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("words")


@given(ids=st.lists(st.lists(st.integers(0, WORDS - 1), min_size=TOKENS, max_size=TOKENS), min_size=1, max_size=3))
def test_a_token_is_its_word_and_its_place(folder: Path, ids: list[list[int]]) -> None:
    found = table(folder).embedded({"input_ids": np.array(ids), "other": np.ones(1)})
    assert found["other"].shape == (1,)
    made = np.asarray(found["input_ids"])
    assert made.dtype == np.float16
    for text, rows in zip(ids, made, strict=True):
        for place, (word, row) in enumerate(zip(text, rows, strict=True)):
            np.testing.assert_array_equal(row, ROWS[word] + ROWS[WORDS + place])


def test_vectors_stand_where_ids_are_below_zero(folder: Path) -> None:
    vectors = np.array([[1, 2, 3], [100, 200, 300]], np.float32)
    ids = np.array([[1, -2, 3, -1, 4]])
    found = table(folder).embedded({"input_ids": ids, TOKEN_EMBEDDINGS: vectors})
    assert TOKEN_EMBEDDINGS not in found
    made = np.asarray(found["input_ids"])[0]
    np.testing.assert_array_equal(made[1], vectors[1] + ROWS[WORDS + 1])
    np.testing.assert_array_equal(made[3], vectors[0] + ROWS[WORDS + 3])
    np.testing.assert_array_equal(made[0], ROWS[1] + ROWS[WORDS])
    assert ids.tolist() == [[1, -2, 3, -1, 4]], "the caller's own"


def test_what_halves_cannot_hold_is_infinite_and_so_found_behind_the_call(folder: Path) -> None:
    vectors = np.full((1, WIDTH), 1e6, np.float32)
    made = table(folder).embedded({"input_ids": np.array([[-1, 0, 0, 0, 0]]), TOKEN_EMBEDDINGS: vectors})
    assert np.isinf(np.asarray(made["input_ids"])[0, 0]).all()


@pytest.mark.parametrize(
    ("ids", "vectors", "why"),
    [
        ([0, 1, 2, 3, WORDS], None, "has 11, 0 to 10 are allowed"),
        ([0, -1, 2, 3, 4], None, "has -1, 0 to 10 are allowed"),
        ([0, -3, 2, 3, 4], 2, "has -3, -2 to 10 are allowed"),
        ([0, -1, 2, 3, 4], 0, "has -1, 0 to 10 are allowed"),
    ],
)
def test_other_ids_are_refused(folder: Path, ids: list[int], vectors: int | None, why: str) -> None:
    given = {"input_ids": np.array([ids])}
    if vectors is not None:
        given[TOKEN_EMBEDDINGS] = np.zeros((vectors, WIDTH), np.float32)
    with pytest.raises(RequestError, match=why):
        table(folder).embedded(given)


@pytest.mark.parametrize(
    ("end", "ids", "at"),
    [
        (None, [5, 9, 2, 9, 1], 1),
        (None, [0, 0, 0, 0, 0], 0),
        (2, [5, 9, 2, 9, 2], 2),
        (7, [5, 9, 2, 9, 2], 0),  # no end at all: as the network itself has it
        (None, [-1, 3, -2, 1, 0], 1),
    ],
)
def test_a_text_ends_at_its_first_largest_id_or_at_the_first_that_is_the_end(
    folder: Path, end: int | None, ids: list[int], at: int
) -> None:
    given = {"input_ids": np.array([ids, [10, 0, 0, 0, 0] if end is None else [end, 0, 0, 0, end]])}
    rows = np.random.default_rng(0).standard_normal((2, TOKENS, 4)).astype(np.float32)
    found = table(folder, end).picked({"pooled": rows, "hidden": rows}, given)
    np.testing.assert_array_equal(found["pooled"], rows[[0, 1], [at, 0]])
    assert found["hidden"] is rows


def test_an_encoder_without_such_an_output_gives_what_it_has(folder: Path) -> None:
    outputs = {"hidden": np.zeros((1, TOKENS, 4), np.float32)}
    assert table(folder, outputs=()).picked(dict(outputs), {}) == outputs
