"""What `inspect` says of an adapter file: from its header, and its hashes as other programs make them."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from pocketxl.engine.adapters.hashes import hash_file, short_hash
from pocketxl.engine.adapters.notes import read_notes
from pocketxl.engine.adapters.read import open_adapter

from ...fixtures.adapters import Tensors, base_layers, kohya, lora, miniature_models, text_layers, write
from ...fixtures.command_line import run

MODELS = miniature_models()


def test_kind_layers_and_ranks(tmp_path: Path) -> None:
    tensors: Tensors = lora(base_layers(MODELS)[:6], kohya("lora_unet"))
    tensors |= lora(text_layers(MODELS, "te2")[:4], kohya("lora_te2"), rank=5)
    tensors |= {"lora_unet_x.diff": torch.zeros(2, 2), "strange": torch.zeros(1)}
    notes = read_notes(open_adapter(write(tmp_path / "a.safetensors", tensors)))
    assert notes.kinds == {"LoRA": 10, "full difference": 1}
    assert notes.places == {"U-Net": 7, "text encoder 2": 4}
    assert notes.ranks == {3: 3, 4: 3, 5: 2, 6: 2}
    assert (notes.others, notes.dtypes) == (1, ("float32",))


def test_words_are_the_authors_or_the_most_frequent_tags(tmp_path: Path) -> None:
    frequency = json.dumps({"10_a": {"fox": 3, " red": 9}, "5_b": {"fox": 7, "x": "no number"}})
    tensors = lora(base_layers(MODELS)[:1], kohya("lora_unet"))

    def words(**notes: str) -> tuple[str, ...]:
        return read_notes(open_adapter(write(tmp_path / "a.safetensors", tensors, notes or None))).words

    assert words(ss_tag_frequency=frequency) == ("fox", "red")
    assert words(**{"ss_tag_frequency": frequency, "modelspec.trigger_phrase": "a fox"}) == ("a fox",)
    for broken in ("{", "[]", '{"a": 1}', "[" * 100_000):
        assert words(ss_tag_frequency=broken) == ()
    assert words() == ()


def test_hashes_are_civitais_and_automatic1111s(tmp_path: Path) -> None:
    file = write(tmp_path / "a.safetensors", lora(base_layers(MODELS)[:1], kohya("lora_unet")), {"note": "x"})
    data, header = file.read_bytes(), open_adapter(file)
    tensors = data[8 + int.from_bytes(data[:8], "little") :]
    hashes = hash_file(file, header)
    assert hashes.sha256 == hashlib.sha256(data).hexdigest()
    assert hashes.autov2 == hashes.sha256[:10]
    assert hashes.tensors == hashlib.sha256(tensors).hexdigest()
    assert short_hash(header.metadata, lambda: hashes.tensors) == hashes.tensors[:12]
    noted = "ab" * 32
    assert short_hash({"sshs_model_hash": noted}, lambda: hashes.tensors) == noted[:12]
    for nonsense in ("", "AB" * 32, "x" * 64, "ab"):
        assert short_hash({"sshs_model_hash": nonsense}, lambda: hashes.tensors) == hashes.tensors[:12]


def test_inspect_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = lora(text_layers(MODELS, "te2")[:4], kohya("lora_te2"), alpha=None)
    file = write(tmp_path / "fox.safetensors", tensors, {"ss_output_name": "Fox", "modelspec.trigger_phrase": "a fox"})
    said = run(capsys, "inspect", str(file)).out
    for part in (
        "LoRA for an unknown model",
        "title Fox",
        "4 of the text encoder 2",
        "words a fox",
        "sha256",
        "AutoV2",
    ):
        assert part in said
    told = json.loads(run(capsys, "inspect", "--json", str(file)).out)
    assert (told["event"], told["layers"]) == ("adapter", {"text encoder 2": 4})
    assert told["lora_hash"] in said


def test_inspect_tells_a_file_that_is_no_lora(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "a.safetensors", {"clip_g": torch.zeros(2, 4), "clip_l": torch.zeros(2, 4)})
    assert "a textual inversion embedding" in run(capsys, "inspect", str(file)).out
