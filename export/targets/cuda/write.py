"""The large files of a component: `weights.bin`, `kernels.bin`, and a text encoder's `words.bin`."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from ....engine.errors import StorageError
from ....engine.program.launches import PORTABLE
from ....engine.program.program import BinarySpec, WeightSpec
from .steps import Words
from .stored import Packer, Parameter, Stored

if TYPE_CHECKING:
    from ....kernels.binaries import Result

Binaries = Mapping[str, Mapping[str, BinarySpec]]
ALIGNMENT = 256
"""Bytes; a tensor begins at a multiple, as memory that the driver gives does."""


def write_weights(
    path: Path, stored: Mapping[str, Stored], packer: Packer, tell: Callable[[str], None]
) -> dict[str, WeightSpec]:
    """Write `weights.bin` in the order in which calls read, one tensor in memory at a time; where each lies.

    Raises `StorageError`.
    """
    found: dict[str, WeightSpec] = {}
    try:
        with path.open("wb") as file:
            for name, tensor in stored.items():
                array = np.ascontiguousarray(packer.array(tensor))
                file.write(bytes(-file.tell() % ALIGNMENT))
                found[name] = WeightSpec(shape=array.shape, dtype=array.dtype.name, offset=file.tell())
                file.write(array.data)
                tell(name)
    except OSError as error:
        raise _cannot(path, error) from error
    return found


def write_words(path: Path, words: Words, packer: Packer, tell: Callable[[str], None]) -> None:
    """Write `words.bin`: see `engine.program.program.Words`. Raises `StorageError`."""
    try:
        with path.open("wb") as file:
            for name in (words.words, words.places):
                file.write(np.ascontiguousarray(packer.array(Parameter(name=name))).data)
                tell(name)
    except OSError as error:
        raise _cannot(path, error) from error


def write_kernels(path: Path, compiled: Mapping[int, Sequence["Result"]]) -> tuple[Binaries, Mapping[str, BinarySpec]]:
    """Write `kernels.bin`; where each binary lies, by compute capability ("89") and variant; and each portable one.

    Portable ones there are where there are kernels for their capability. Equal binaries of several names are stored
    once. Raises `StorageError`.
    """
    found: dict[str, dict[str, BinarySpec]] = {}
    places: dict[bytes, int] = {}

    def put(file: BinaryIO, result: "Result", content: bytes) -> BinarySpec:
        binary = result.binary
        assert binary is not None, result.faults
        if content not in places:
            places[content] = file.tell()
            file.write(content)
        return BinarySpec(
            offset=places[content],
            size=len(content),
            entry=binary.entry,
            shared=binary.shared,
            threads=32 * result.variant.num_warps,
        )

    try:
        with path.open("wb") as file:
            for sm, results in sorted(compiled.items()):
                found[str(sm)] = {one.variant.name: put(file, one, _cubin(one)) for one in results}
            portable = compiled.get(PORTABLE, ())
            later = {one.variant.name: put(file, one, _ptx(one)) for one in portable}
    except OSError as error:
        raise _cannot(path, error) from error
    return found, later


def _cubin(result: "Result") -> bytes:
    assert result.binary is not None, result.faults
    return result.binary.cubin


def _ptx(result: "Result") -> bytes:
    assert result.binary is not None, result.faults
    return zlib.compress(result.binary.ptx.encode(), 9)


def _cannot(path: Path, error: OSError) -> StorageError:
    return StorageError(f"cannot write {path}: {error.strerror or error}; free some space or choose another folder")
