"""The hashes that people look adapters up by: a file's own, and that of its tensors alone."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import StorageError
from ..stored.header import Header

NOTE = "sshs_model_hash"
"""kohya's note of the tensors' hash, which AUTOMATIC1111 believes without reading them."""
SHORT = 12
_BLOCK = 1 << 22
_HEXADECIMAL = set("0123456789abcdef")


@dataclass(frozen=True, kw_only=True)
class Hashes:
    """Of one file."""

    sha256: str
    tensors: str
    """sha256 of what follows the header, in full; the same for files that differ in their notes alone."""

    @property
    def autov2(self) -> str:
        """What Civitai calls a file by."""
        return self.sha256[:10]


def hash_file(path: Path, header: Header) -> Hashes:
    """Read a file once, a block at a time, and hash it. Raises `StorageError`."""
    start = data_start(header)
    whole, tensors = hashlib.sha256(), hashlib.sha256()
    try:
        with path.open("rb") as file:
            beginning = file.read(start)
            whole.update(beginning)
            while block := file.read(_BLOCK):
                whole.update(block)
                tensors.update(block)
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    return Hashes(sha256=whole.hexdigest(), tensors=tensors.hexdigest())


def data_start(header: Header) -> int:
    """Where a file's tensors begin."""
    return min(tensor.offset for tensor in header.tensors.values())


def short_hash(metadata: Mapping[str, str], tensors: Callable[[], str]) -> str:
    """AUTOMATIC1111's name for a LoRA in `Lora hashes`: of the note if there is one, else of the tensors' hash."""
    noted = metadata.get(NOTE, "")
    return (noted if len(noted) == 64 and set(noted) <= _HEXADECIMAL else tensors())[:SHORT]
