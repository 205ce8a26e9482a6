"""Reading safetensors headers: everything a sound file says, and one kind of error for every unsound one."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from pocketxl.engine.errors import IntegrityError, StorageError
from pocketxl.engine.stored.header import DTYPES, parse_header, read_header

TENSORS = {
    "a": torch.arange(6.0).reshape(2, 3),
    "half": torch.ones(4, dtype=torch.float16),
    "brain": torch.ones(2, 2, 2, dtype=torch.bfloat16),
    "number": torch.tensor(7),
    "none": torch.empty(0, 3),
}


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    save_file(TENSORS, tmp_path / "sound.safetensors", metadata={"format": "pt"})
    return tmp_path / "sound.safetensors"


def rewrite(path: Path, change: Any) -> None:
    """Applies `change` to the file's header, and keeps the length right."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    encoded = json.dumps(header).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + data[8 + length :])


def test_header_agrees_with_the_reference_reader(sound: Path) -> None:
    header = read_header(sound).tensors
    with safe_open(sound, "pt") as reference:
        assert sorted(header) == sorted(reference.keys())
        for name, stored in header.items():
            assert list(stored.shape) == reference.get_slice(name).get_shape()
            assert getattr(torch, stored.dtype) == reference.get_tensor(name).dtype
            assert stored.nbytes == reference.get_tensor(name).nbytes


def test_metadata_is_read(sound: Path) -> None:
    assert read_header(sound).metadata == {"format": "pt"}


def test_every_element_type_has_torchs_size() -> None:
    for torch_name, itemsize in DTYPES.values():
        assert getattr(torch, torch_name).itemsize == itemsize


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda h: h["a"].update(dtype="F3"), "F3"),
        (lambda h: h["a"].update(shape=[2, 4]), "does not fill"),
        (lambda h: h["a"].update(shape=[-2, -3]), "whole numbers"),
        (lambda h: h["a"].update(shape=[True, 6]), "whole numbers"),
        (lambda h: h["a"].update(data_offsets=[0]), "whole numbers"),
        (lambda h: h["a"].pop("dtype"), "lacks dtype"),
        (lambda h: h.update(b=h["a"]), "to no tensor or to two"),
        (lambda h: h.pop("a"), "to no tensor or to two"),
        (lambda h: h.update(a=3), "lacks dtype"),
        (lambda h: h.update(__metadata__={"format": 3}), "not an object of texts"),
        (lambda h: h.update(__metadata__=["pt"]), "not an object of texts"),
    ],
)
def test_unsound_header_is_an_integrity_error_with_the_reason(sound: Path, change: Any, says: str) -> None:
    rewrite(sound, change)
    with pytest.raises(IntegrityError, match=says) as error:
        read_header(sound)
    assert str(sound) in str(error.value)


@pytest.mark.parametrize("keep", [0, 4, 8, 60, -1])
def test_cut_file_is_an_integrity_error(sound: Path, keep: int) -> None:
    sound.write_bytes(sound.read_bytes()[:keep])
    with pytest.raises(IntegrityError, match=r"sound\.safetensors"):
        read_header(sound)


def test_longer_file_is_an_integrity_error(sound: Path) -> None:
    sound.write_bytes(sound.read_bytes() + b"\0")
    with pytest.raises(IntegrityError, match="header promises"):
        read_header(sound)


def test_name_given_twice_is_refused() -> None:
    entry = '"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}'
    with pytest.raises(ValueError, match="twice"):
        parse_header(f"{{{entry}, {entry}}}".encode(), Path("x"), data_bytes=1)


@pytest.mark.parametrize("suffix", [".ckpt", ".bin", ".pt", ".PTH"])
def test_pickle_is_refused_by_its_name_before_it_is_opened(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(IntegrityError, match=r"pickle.*convert it to safetensors"):
        read_header(tmp_path / f"model{suffix}")


def test_pickle_is_recognised_under_another_name(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    with pytest.raises(IntegrityError, match="pickle"):
        read_header(tmp_path / "model.safetensors")


def test_header_of_640_bytes_is_no_pickle(tmp_path: Path) -> None:
    """Its length begins with the two bytes that a pickle begins with."""
    header = json.dumps({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}).encode().ljust(640)
    path = tmp_path / "padded.safetensors"
    path.write_bytes((640).to_bytes(8, "little") + header + b"\1")
    assert path.read_bytes().startswith(b"\x80\x02")
    assert list(read_header(path).tensors) == ["a"]


def test_missing_file_and_folder_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="missing"):
        read_header(tmp_path / "none.safetensors")
    with pytest.raises(StorageError, match="cannot be read"):
        read_header(tmp_path)


@given(st.binary(max_size=400))
def test_random_bytes_raise_nothing_but_integrity_errors(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "random.safetensors"
    path.write_bytes(data)
    with pytest.raises(IntegrityError):
        read_header(path)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_flipped_byte_is_an_integrity_error_or_a_sound_file(
    tmp_path_factory: pytest.TempPathFactory, position: int, mask: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "flipped.safetensors"
    save_file(TENSORS, path)
    data = bytearray(path.read_bytes())
    data[position % len(data)] ^= mask
    path.write_bytes(data)
    try:
        header = read_header(path).tensors
    except IntegrityError:
        return
    assert all(stored.offset + stored.nbytes <= len(data) for stored in header.values())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(list(DTYPES)),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "__metadata__", "a"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=4), JSON, max_size=4), st.integers(0, 64))
def test_any_json_is_parsed_or_a_value_error(entries: dict[str, Any], data_bytes: int) -> None:
    header = json.dumps(entries).encode()
    try:
        tensors = parse_header(header, Path("x"), data_bytes).tensors
    except ValueError:
        return
    assert sum(stored.nbytes for stored in tensors.values()) == data_bytes


def test_deeply_nested_header_is_an_integrity_error(tmp_path: Path) -> None:
    header = b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    path = tmp_path / "deep.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(IntegrityError):
        read_header(path)
