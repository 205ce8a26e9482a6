"""Weights: read one tensor at a time, the same in every file form, and safe against what a folder may hold."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pocketxl.engine.errors import IntegrityError
from pocketxl.engine.stored.header import read_header
from pocketxl.export.checkpoint.weights import HASH_BLOCK, Weights, open_weights

from ...fixtures.original_layout import write_shards

TENSORS = {
    "b.weight": torch.randn(5, 3, generator=torch.Generator().manual_seed(0)),
    "a.bias": torch.arange(7).half(),
    "c": torch.randn(4, 4, generator=torch.Generator().manual_seed(1)).bfloat16(),
    "scalar": torch.tensor(2.5),
    "empty": torch.empty(0, 2),
}


@pytest.fixture
def weights(tmp_path: Path) -> Weights:
    save_file(TENSORS, tmp_path / "model.safetensors")
    return open_weights(tmp_path, "model")


def test_tensors_are_those_that_were_saved(weights: Weights) -> None:
    assert weights.names() == sorted(TENSORS) == list(weights)
    for name, tensor in TENSORS.items():
        read = weights.tensor(name)
        assert read.dtype == tensor.dtype == getattr(torch, weights.dtype(name))
        assert tuple(read.shape) == weights.shape(name)
        assert weights.nbytes(name) == tensor.nbytes
        assert torch.equal(read, tensor)


def test_a_tensor_is_memory_of_its_own(weights: Weights) -> None:
    weights.tensor("b.weight").zero_()
    assert torch.equal(weights.tensor("b.weight"), TENSORS["b.weight"])


def test_rows_and_transposes_are_read_as_such(weights: Weights) -> None:
    stored = weights.stored("b.weight")
    views = Weights({"rows": stored.rows(1, 4), "turned": stored.transpose(), "back": stored.transpose().transpose()})
    assert torch.equal(views.tensor("rows"), TENSORS["b.weight"][1:4])
    assert torch.equal(views.tensor("turned"), TENSORS["b.weight"].T)
    assert views.tensor("turned").is_contiguous()
    assert views.shape("turned") == (3, 5)
    assert torch.equal(views.tensor("back"), TENSORS["b.weight"])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="needs Linux' count of bytes read")
def test_nothing_but_the_tensor_is_read(tmp_path: Path) -> None:
    """From a file of 1 GiB, all holes."""
    gibibyte = 1 << 30
    large = {"dtype": "F32", "shape": [gibibyte // 4], "data_offsets": [0, gibibyte]}
    small = {"dtype": "F32", "shape": [4], "data_offsets": [gibibyte, gibibyte + 16]}
    header = json.dumps({"large": large, "small": small}).encode()
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.seek(gibibyte, 1)
        file.write(torch.arange(4.0).numpy().tobytes())
    before = bytes_read()
    weights = open_weights(tmp_path, "model")
    assert torch.equal(weights.tensor("small"), torch.arange(4.0))
    assert len(header) < bytes_read() - before < 1 << 16


def bytes_read() -> int:
    """How many bytes this process has asked the kernel to read."""
    return int(Path("/proc/self/io").read_text().split()[1])


def test_digest_does_not_depend_on_the_file_form(weights: Weights, tmp_path: Path) -> None:
    other = tmp_path / "shards"
    other.mkdir()
    names = list(TENSORS)[::-1]
    write_shards(other, "model", ({n: TENSORS[n] for n in part} for part in (names[:2], names[2:])))
    sharded = open_weights(other, "model")
    assert sharded.digest() == weights.digest()
    assert all(torch.equal(sharded.tensor(name), tensor) for name, tensor in TENSORS.items())
    turned = {**{n: weights.stored(n) for n in weights}, "c": weights.stored("c").transpose()}
    save_file({**TENSORS, "c": TENSORS["c"].T.contiguous()}, tmp_path / "turned.safetensors")
    assert Weights(turned).digest() == Weights(read_header(tmp_path / "turned.safetensors").tensors).digest()


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t | {"c": t["c"] + 1},
        lambda t: t | {"c": t["c"].reshape(2, 8)},
        lambda t: t | {"c": t["c"].view(torch.float16)},
        lambda t: {f"x.{name}": tensor for name, tensor in t.items()},
        lambda t: {name: tensor for name, tensor in t.items() if name != "empty"},
    ],
    ids=["value", "shape", "type", "name", "number"],
)
def test_digest_tells_apart(weights: Weights, tmp_path: Path, change: object) -> None:
    assert callable(change)
    save_file(change(dict(TENSORS)), tmp_path / "other.safetensors")
    assert open_weights(tmp_path, "other").digest() != weights.digest()


def test_digest_reads_large_tensors_in_blocks(tmp_path: Path) -> None:
    large = torch.zeros(HASH_BLOCK + 3, dtype=torch.uint8)
    digests = []
    for position in (0, HASH_BLOCK - 1, HASH_BLOCK, HASH_BLOCK + 2):
        changed = large.clone()
        changed[position] = 1
        save_file({"t": changed}, tmp_path / "model.safetensors")
        digests.append(open_weights(tmp_path, "model").digest())
    assert len(set(digests)) == 4


def test_only_keeps_the_named_and_names_the_missing(weights: Weights) -> None:
    assert weights.only(["c", "a.bias"]).names() == ["a.bias", "c"]
    with pytest.raises(IntegrityError, match=r"lacks 2 tensors.*model\.safetensors.*among them x, y"):
        weights.only(["c", "x", "y"])
    with pytest.raises(IntegrityError, match="lacks the tensor x"):
        weights.tensor("x")


def test_file_that_shrinks_while_in_use_is_an_error(weights: Weights, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(IntegrityError, match="shorter"):
        [weights.tensor(name) for name in weights]
    with pytest.raises(IntegrityError, match="shorter"):
        weights.digest()


def test_variant_is_found_when_the_plain_file_is_absent(tmp_path: Path) -> None:
    save_file({"t": torch.ones(1).half()}, tmp_path / "model.fp16.safetensors")
    assert open_weights(tmp_path, "model").dtype("t") == "float16"
    save_file({"t": torch.ones(1)}, tmp_path / "model.safetensors")
    assert open_weights(tmp_path, "model").dtype("t") == "float32"


def test_sharded_variant_is_found(tmp_path: Path) -> None:
    write_shards(tmp_path, "model", [TENSORS])
    (tmp_path / "model.safetensors.index.json").rename(tmp_path / "model.safetensors.index.fp16.json")
    assert open_weights(tmp_path, "model").names() == sorted(TENSORS)


@pytest.mark.parametrize(
    "name", ["../out.safetensors", "/etc/x.safetensors", "a/b.safetensors", "..", "x.bin", "a\\b.safetensors"]
)
def test_shard_outside_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    save_file(TENSORS, tmp_path / "out.safetensors")
    folder = tmp_path / "unet"
    folder.mkdir()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"c": name}}))
    with pytest.raises(IntegrityError, match=r"only \.safetensors files beside it"):
        open_weights(folder, "model")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": ["a"]}', "\0"])
def test_broken_index_is_an_integrity_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(IntegrityError, match="not an index"):
        open_weights(tmp_path, "model")


def test_missing_shard_and_tensor_are_named(tmp_path: Path) -> None:
    write_shards(tmp_path, "model", [{"a": torch.ones(1)}, {"b": torch.ones(1)}])
    last = tmp_path / "model-00002-of-00002.safetensors"
    save_file({"x": torch.ones(1)}, last)
    with pytest.raises(IntegrityError, match=r"00002.*lacks the tensor b"):
        open_weights(tmp_path, "model")
    last.unlink()
    with pytest.raises(IntegrityError, match=r"model-00002-of-00002.safetensors is missing"):
        open_weights(tmp_path, "model")


def test_folder_with_pickles_only_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(IntegrityError, match=r"only model.bin, a pickle.*convert it to safetensors"):
        open_weights(tmp_path, "model")


def test_empty_folder_names_the_missing_file(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=r"model\.safetensors is missing"):
        open_weights(tmp_path, "model")


def test_agrees_with_the_reference_reader(tiny_folders: dict[str, Path]) -> None:
    folder = tiny_folders["base"] / "vae"
    weights = open_weights(folder, "diffusion_pytorch_model")
    reference = load_file(folder / "diffusion_pytorch_model.safetensors")
    assert weights.names() == sorted(reference)
    assert all(torch.equal(weights.tensor(name), tensor) for name, tensor in reference.items())
