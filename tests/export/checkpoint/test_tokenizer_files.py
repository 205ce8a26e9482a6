"""CLIP's vocabulary: the bundled one is OpenAI's, and every way of writing a tokenizer down gives the same bytes."""

import hashlib
import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import CLIPTokenizer

from pocketxl.engine.errors import IntegrityError
from pocketxl.export.checkpoint.settings import BUNDLED, read_settings
from pocketxl.export.checkpoint.tokenizer_files import read_tokenizer

from ...fixtures.checkpoints import tiny_vocabulary, write_tokenizer

# The files tokenizer/vocab.json and tokenizer/merges.txt of the public SDXL repositories.
PUBLIC_VOCABULARY = "e089ad92ba36837a0d31433e555c8f45fe601ab5c221d4f607ded32d9f7a4349"
PUBLIC_MERGES = "9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a"


def test_bundled_vocabulary_is_the_public_one() -> None:
    files = read_settings(BUNDLED / "base").tokenizer_files("tokenizer")
    assert hashlib.sha256(files["merges.txt"]).hexdigest() == PUBLIC_MERGES
    vocabulary = json.loads(files["vocab.json"])
    assert len(vocabulary) == 49_408
    as_published = json.dumps(vocabulary, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    assert hashlib.sha256(as_published.encode()).hexdigest() == PUBLIC_VOCABULARY


def test_bundled_tokenizers_differ_in_padding_alone() -> None:
    settings = read_settings(BUNDLED / "base")
    first, second = settings.tokenizer_files("tokenizer"), settings.tokenizer_files("tokenizer_2")
    assert json.loads(first.pop("tokenizer_config.json")) | {"pad_token": "!"} == json.loads(
        second.pop("tokenizer_config.json")
    )
    assert first == second
    assert read_settings(BUNDLED / "refiner").tokenizer_files("tokenizer_2")["vocab.json"] == second["vocab.json"]


def test_transformers_reads_the_canonical_files_as_the_originals(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "original", pad="!")
    canonical = tmp_path / "canonical"
    canonical.mkdir()
    for name, data in read_tokenizer(tmp_path / "original").items():
        (canonical / name).write_bytes(data)
    text = ["a red cat and A Blue dog!", "", "naïve 日本 😀"]
    ours, theirs = (CLIPTokenizer.from_pretrained(folder) for folder in (canonical, tmp_path / "original"))
    kwargs = {"padding": "max_length", "max_length": 77, "truncation": True}
    assert ours(text, **kwargs).input_ids == theirs(text, **kwargs).input_ids
    assert ours.pad_token_id == theirs.pad_token_id == 0


def test_every_form_gives_the_same_bytes(tmp_path: Path) -> None:
    """Pretty-printed, with special tokens as objects or in their own file, or as one tokenizer.json."""
    write_tokenizer(tmp_path / "plain", pad="<|endoftext|>")
    expected = read_tokenizer(tmp_path / "plain")
    vocabulary, merges = tiny_vocabulary()
    config = json.loads((tmp_path / "plain/tokenizer_config.json").read_text())

    pretty = tmp_path / "pretty"
    write_tokenizer(pretty, pad="<|endoftext|>")
    (pretty / "vocab.json").write_text(json.dumps(vocabulary, indent=2, sort_keys=True))
    objects = {k: {"__type": "AddedToken", "content": v} if k.endswith("_token") else v for k, v in config.items()}
    objects.pop("pad_token")
    (pretty / "tokenizer_config.json").write_text(json.dumps(objects))
    assert read_tokenizer(pretty) == expected

    fast = tmp_path / "fast"
    CLIPTokenizer.from_pretrained(tmp_path / "plain").save_pretrained(fast)
    for name in ("vocab.json", "merges.txt"):
        (fast / name).unlink(missing_ok=True)
    assert Tokenizer.from_file(str(fast / "tokenizer.json")).get_vocab_size() == len(vocabulary)
    assert read_tokenizer(fast) == expected

    assert expected["merges.txt"].decode().split("\n")[1:-1] == [" ".join(pair) for pair in merges]


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("vocab.json", '{"a": 1, "b": 3}', "token ids"),
        ("vocab.json", '{"a": "x"}', "token ids"),
        ("merges.txt", "#version: 0.2\na b c\n", "not a CLIP vocabulary"),
        ("merges.txt", "#version: 0.2\nab\n", "not a CLIP vocabulary"),
        ("vocab.json", '{"a": 0, "b": true}', "token ids"),
        ("tokenizer_config.json", '{"pad_token": "nowhere"}', "pad_token is 'nowhere'"),
        ("tokenizer_config.json", '{"model_max_length": [77]}', "model_max_length is .77.; it must be 3 to 77"),
        ("tokenizer_config.json", '{"model_max_length": NaN}', "model_max_length is nan"),
    ],
)
def test_unsound_tokenizer_is_an_integrity_error(tmp_path: Path, file: str, text: str, says: str) -> None:
    write_tokenizer(tmp_path / "tokenizer", pad="!")
    (tmp_path / "tokenizer" / file).write_text(text)
    with pytest.raises(IntegrityError, match=says):
        read_tokenizer(tmp_path / "tokenizer")


def test_no_limit_is_the_length_of_a_prompt(tmp_path: Path) -> None:
    """transformers writes 10**30 for none."""
    write_tokenizer(tmp_path / "tokenizer", pad="!")
    expected = read_tokenizer(tmp_path / "tokenizer")
    file = tmp_path / "tokenizer/tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": int(1e30)}))
    assert read_tokenizer(tmp_path / "tokenizer") == expected


def test_broken_tokenizer_json_is_an_integrity_error(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "WordPiece"}}')
    with pytest.raises(IntegrityError, match=r"tokenizer\.json is not a CLIP vocabulary"):
        read_tokenizer(tmp_path)
