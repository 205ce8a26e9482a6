"""Reads the header of a safetensors file and says where each tensor lies; the tensors themselves stay on disk.

Format: 8 bytes little-endian header length, a JSON object `name: {dtype, shape, data_offsets}`, then the tensors' bytes
without gaps (https://huggingface.co/docs/safetensors). Every rule of it is checked here before an offset is trusted.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, NoReturn

from ..errors import IntegrityError, StorageError

# safetensors' name: (torch's and numpy's name, bytes per element)
DTYPES: Mapping[str, tuple[str, int]] = {
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "F8_E5M2": ("float8_e5m2", 1),
    "I64": ("int64", 8),
    "I32": ("int32", 4),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
}
MAX_HEADER_BYTES = 100_000_000
"""The reference implementation's limit."""
MAX_DIMS = 16
SUFFIXES = (".safetensors", ".sft")
PICKLE_SUFFIXES = (".ckpt", ".bin", ".pt", ".pth", ".pkl", ".pickle")
PICKLE_BEGINNINGS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
CONVERT = "convert it to safetensors first, for instance with `save_pretrained(..., safe_serialization=True)`"


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """Where a tensor lies: `shape` elements of `dtype` from byte `offset` of the file on."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    itemsize: int
    transposed: bool = False
    """The stored matrix is the transpose of this tensor."""

    @property
    def nbytes(self) -> int:
        """Bytes on disk, and in memory."""
        return prod(self.shape) * self.itemsize

    def rows(self, start: int, stop: int) -> "StoredTensor":
        """The rows from `start` up to `stop`, which lie together on disk."""
        width = prod(self.shape[1:]) * self.itemsize
        return replace(self, shape=(stop - start, *self.shape[1:]), offset=self.offset + start * width)

    def without_kernel(self) -> "StoredTensor":
        """The weight of a linear layer that is stored as a 1×1 convolution; any other tensor as it is."""
        return replace(self, shape=self.shape[:2]) if self.shape[2:] in ((1,), (1, 1)) else self

    def transpose(self) -> "StoredTensor":
        """The matrix transposed on reading."""
        return replace(self, shape=self.shape[::-1], transposed=not self.transposed)


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a file says of itself: its tensors by name, and the notes of whoever wrote it."""

    tensors: Mapping[str, StoredTensor]
    metadata: Mapping[str, str]


def refuse_pickle(path: Path) -> None:
    """Raises `IntegrityError` when the name says that the file is a pickle, which can run code when it is loaded."""
    if path.suffix.lower() in PICKLE_SUFFIXES:
        _refuse(path)


def read_header(path: Path) -> Header:
    """The header of a safetensors file; `IntegrityError` when anything about the file is off."""
    refuse_pickle(path)
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            beginning = file.read(8)
            length = int.from_bytes(beginning, "little")
            header = file.read(length) if length <= min(MAX_HEADER_BYTES, size - 8) else b""
    except FileNotFoundError as error:
        raise IntegrityError(f"{path} is missing; fetch it again.") from error
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        return parse_header(header, path, data_bytes=size - 8 - length)
    except (ValueError, RecursionError) as error:
        if beginning.startswith(PICKLE_BEGINNINGS):
            _refuse(path)
        raise IntegrityError(f"{path} is not a whole safetensors file ({error}); fetch it again.") from error


def parse_header(header: bytes, path: Path, data_bytes: int) -> Header:
    """What `header` declares of `data_bytes` bytes of data; `ValueError` or `RecursionError` if unsound."""
    if not header.startswith(b"{"):
        raise ValueError("no header of the length that its first bytes give")
    entries = json.loads(header.decode(), object_pairs_hook=_unique)
    if not isinstance(entries, dict):
        raise ValueError("the header is not a JSON object")
    metadata = entries.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its __metadata__ is not an object of texts")
    start = 8 + len(header)
    ranges: list[tuple[int, int]] = []
    tensors: dict[str, StoredTensor] = {}
    for name, entry in entries.items():
        dtype, shape, (begin, end) = _fields(name, entry)
        torch_name, itemsize = DTYPES[dtype]
        if end - begin != prod(shape) * itemsize:
            raise ValueError(f"tensor {name!r} of shape {shape} and type {dtype} does not fill bytes {begin}-{end}")
        ranges.append((begin, end))
        tensors[name] = StoredTensor(path=path, dtype=torch_name, shape=shape, offset=start + begin, itemsize=itemsize)
    expected = 0
    for begin, end in sorted(ranges):
        if begin != expected:
            raise ValueError(f"bytes {min(begin, expected)}-{max(begin, expected)} belong to no tensor or to two")
        expected = end
    if expected != data_bytes:
        raise ValueError(f"{data_bytes} bytes of data where the header promises {expected}")
    return Header(tensors=tensors, metadata=metadata)


def _fields(name: str, entry: Any) -> tuple[str, tuple[int, ...], tuple[int, int]]:
    """dtype, shape and byte range of a header entry, each of the type it must have."""
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise ValueError(f"tensor {name!r} lacks dtype, shape or data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"tensor {name!r} has the type {dtype!r}, not one of {', '.join(DTYPES)}")
    if not _whole_numbers(shape) or not _whole_numbers(offsets) or len(offsets) != 2:
        raise ValueError(f"tensor {name!r} has a shape or offsets that are not a few whole numbers from 0 up")
    return dtype, tuple(shape), (offsets[0], offsets[1])


def _whole_numbers(values: Any) -> bool:
    """Whether this is a short list of integers from 0 up (JSON's true is no number).

    Bounded, so that a product of them takes no time: a file may hold millions of numbers of thousands of digits.
    """
    return (
        isinstance(values, list)
        and len(values) <= MAX_DIMS
        and all(type(v) is int and 0 <= v < 1 << 63 for v in values)
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys differ: of two equal ones, readers disagree which counts."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name appears twice in the header")
    return result


def _refuse(path: Path) -> NoReturn:
    raise IntegrityError(f"{path} is a pickle, which can run code when it is loaded, and is refused; {CONVERT}.")
