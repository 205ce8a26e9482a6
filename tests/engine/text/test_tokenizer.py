import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

import pocketxl.export
from pocketxl.engine.errors import IntegrityError
from pocketxl.engine.request.prompt import parse_prompt
from pocketxl.engine.text.tokenizer import FILES, Tokenizer

from ...fixtures.checkpoints import load_tokenizer, write_tokenizer

CONFIGS = Path(pocketxl.export.__path__[0]) / "checkpoint" / "configs"
TEXTS = [
    "",
    " ",
    "a red cat and a blue dog in the sky",
    "Hello, World! It's 3:30 — they've said we'll, I'd, you're, I'm don't",
    "naïve café résumé ÅNGSTRÖM Ǆ ﬁ ß İ",
    "e\u0301 cafe\u0301 (NFC composes)",
    "図書館 кот العربية हिन्दी ไทย",
    "🎉👩‍🚀🏳️‍🌈 emoji",
    "tabs\tand\nnewlines\r\n  and\u00a0no-break\u3000ideographic\u2028line\x85next\x1funit",
    "null\x00and\x01control\x7f\ufeffbom",
    "1234567890 ½ ² ٣ Ⅷ",
    "!!! wow! ! !a a!b",
    "<|startoftext|> a <|endoftext|> b <|STARTOFTEXT|> <|endoftext",
    "''s 's'S 'T 're\u2019s",
    "photorealistic bokeh, 8k uhd, dslr, (soft:1.2) lighting, [film] grain\\",
    "x" * 3000,
]


Pair = tuple[Tokenizer, Any]


@pytest.fixture(scope="session", params=["tiny", "tiny_2", "public", "public_2", "flags"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Our tokenizer and transformers' for the same folder."""
    folder = tmp_path_factory.mktemp("tokenizers") / request.param
    pad = "!" if request.param.endswith("_2") else "<|endoftext|>"
    write_tokenizer(folder, pad=pad)
    (folder / "special_tokens_map.json").unlink()
    if request.param.startswith("public"):
        write_public_vocabulary(folder)
        name = "tokenizer_2" if pad == "!" else "tokenizer"
        (folder / FILES[2]).write_bytes((CONFIGS / "base" / name / FILES[2]).read_bytes())
    if request.param == "flags":
        # Files of older versions spell the flags out.
        vocabulary = json.loads((folder / FILES[0]).read_text())
        config = json.loads((folder / FILES[2]).read_text())
        tokens = {"!": False, "<|startoftext|>": True, "<|endoftext|>": False}
        plain = {"lstrip": False, "rstrip": False, "single_word": False, "special": True}
        config["added_tokens_decoder"] = {
            str(vocabulary[t]): {"content": t, "normalized": n, **plain} for t, n in tokens.items()
        }
        config["pad_token"] = {"__type": "AddedToken", "content": "!", "normalized": False, **plain}
        (folder / FILES[2]).write_text(json.dumps(config))
    return load_tokenizer(folder), CLIPTokenizer.from_pretrained(folder)


def write_public_vocabulary(folder: Path) -> None:
    merges = gzip.decompress((CONFIGS / "clip_merges.txt.gz").read_bytes()).decode()
    pairs = [line.split(" ") for line in merges.split("\n")[1:] if line]
    letters = [*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324)]
    alphabet = [chr(code) for code in letters]
    tokens = [*alphabet, *(f"{c}</w>" for c in alphabet), *("".join(p) for p in pairs)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    assert len(tokens) == 49408, "the size of CLIP's vocabulary"
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    (folder / "merges.txt").write_text(merges, encoding="utf-8")


@pytest.mark.parametrize("text", TEXTS)
def test_ids_equal_transformers(pair: Pair, text: str) -> None:
    ours, theirs = pair
    assert ours.ids(text) == theirs(text, add_special_tokens=False).input_ids


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
@given(text=st.text(max_size=60))
def test_ids_equal_transformers_for_any_text(pair: Pair, text: str) -> None:
    ours, theirs = pair
    assert ours.ids(text) == theirs(text, add_special_tokens=False).input_ids


@pytest.mark.parametrize("text", [t for t in TEXTS if len(t.encode()) <= 60])
def test_one_chunk_equals_transformers_padded_ids(pair: Pair, text: str) -> None:
    ours, theirs = pair
    expected = theirs(text, padding="max_length", max_length=77, truncation=True, return_tensors="np").input_ids
    chunks = ours.chunks([(text, 1.0)])
    np.testing.assert_array_equal(chunks.ids, expected)
    assert chunks.ids.dtype == np.int64
    assert (chunks.weights == 1).all()


def test_empty_chunks_are_those_of_an_empty_prompt(pair: Pair) -> None:
    ours, theirs = pair
    expected = theirs("", padding="max_length", max_length=77, return_tensors="np").input_ids
    np.testing.assert_array_equal(ours.empty(3).ids, np.repeat(expected, 3, axis=0))


def test_public_ids_are_the_known_ones(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "t", pad="<|endoftext|>")
    write_public_vocabulary(tmp_path / "t")
    ours = load_tokenizer(tmp_path / "t")
    # The example that OpenAI's and Hugging Face's documents print for CLIP.
    assert ours.chunks([("a photo of a cat", 1.0)]).ids[0, :7].tolist() == [49406, 320, 1125, 539, 320, 2368, 49407]


def test_weights_belong_to_tokens(pair: Pair) -> None:
    ours, _ = pair
    chunks = ours.chunks([("a ", 1.0), ("red cat", 1.5), (" sky", 0.5)])
    red = len(ours.ids("red cat"))
    assert chunks.weights[0, 0] == 1
    assert (chunks.weights[0, 2 : 2 + red] == 1.5).all()
    assert chunks.weights[0, 2 + red] == 0.5
    assert (chunks.weights[0, 2 + red + len(ours.ids("sky")) :] == 1).all(), "end and padding have no weight"


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("a BREAK cat", ["a", "cat"]),
        ("BREAK cat", ["", "cat"]),
        ("cat BREAK", ["cat"]),
        ("a BREAK BREAK cat", ["a", "", "cat"]),
        ("a " * 75 + "BREAK cat", ["a " * 75, "cat"]),
        ("a " * 76 + "BREAK cat", ["a " * 75, "a", "cat"]),
        ("BREAK", [""]),
    ],
)
def test_break_ends_a_chunk(pair: Pair, text: str, rows: list[str]) -> None:
    ours, _ = pair
    chunks = ours.chunks(parse_prompt(text))
    expected = [ours.chunks([(row, 1.0)]).ids for row in rows]
    np.testing.assert_array_equal(chunks.ids, np.concatenate(expected))


@pytest.mark.parametrize(("count", "rows"), [(0, 1), (74, 1), (75, 1), (76, 2), (150, 2), (151, 3)])
def test_chunks_of_75(pair: Pair, count: int, rows: int) -> None:
    ours, _ = pair
    (token,) = ours.ids("a")
    chunks = ours.chunks([("a " * count, 1.25)])
    assert chunks.ids.shape == chunks.weights.shape == (rows, 77)
    assert (chunks.ids[:, 0] == ours.bos).all()
    assert (chunks.ids == token).sum() == count
    assert (chunks.weights == 1.25).sum() == count
    for row in chunks.ids:
        end = int(np.argmax(row == ours.eos))
        assert (row[1:end] == token).all()
        assert (row[end + 1 :] == ours.pad).all()


@pytest.mark.parametrize("name", FILES)
def test_missing_file(tmp_path: Path, name: str) -> None:
    write_tokenizer(tmp_path / "t", pad="!")
    (tmp_path / "t" / name).unlink()
    with pytest.raises(IntegrityError, match=f"{name} missing"):
        load_tokenizer(tmp_path / "t")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("vocab.json", b"{"),
        ("vocab.json", b"[]"),
        ("vocab.json", b'{"a": -1}'),
        ("vocab.json", b'{"a": "b"}'),
        ("vocab.json", b'{"a": 0}'),
        ("vocab.json", b"\xff\xfe"),
        ("vocab.json", b"[" * 100_000),
        ("merges.txt", b"a b c\n"),
        ("merges.txt", b"\xff\n"),
        ("merges.txt", b"not-in vocabulary\n"),
        ("tokenizer_config.json", b"null"),
        ("tokenizer_config.json", b'{"bos_token": "missing"}'),
        ("tokenizer_config.json", b'{"pad_token": {"no": "content"}}'),
    ],
)
def test_damaged_file(tmp_path: Path, name: str, content: bytes) -> None:
    write_tokenizer(tmp_path / "t", pad="!")
    (tmp_path / "t" / name).write_bytes(content)
    with pytest.raises(IntegrityError):
        load_tokenizer(tmp_path / "t")
