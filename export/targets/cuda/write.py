"""The large files of a component: `weights.bin`, `kernels.bin`, and a text encoder's `words.bin`."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ....engine.errors import StorageError
from ....engine.program.program import BinarySpec, WeightSpec
from .steps import Words
from .stored import Packer, Parameter, Stored

if TYPE_CHECKING:
    from ....kernels.binaries import Result

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


def write_kernels(path: Path, compiled: Mapping[int, Iterable["Result"]]) -> dict[str, dict[str, BinarySpec]]:
    """Write `kernels.bin`; by compute capability ("89") and variant, where each binary lies.

    Equal binaries of several names are stored once. Raises `StorageError`.
    """
    found: dict[str, dict[str, BinarySpec]] = {}
    places: dict[bytes, int] = {}
    try:
        with path.open("wb") as file:
            for sm, results in sorted(compiled.items()):
                entries = found[str(sm)] = {}
                for result in results:
                    binary = result.binary
                    assert binary is not None, result.faults
                    if binary.cubin not in places:
                        places[binary.cubin] = file.tell()
                        file.write(binary.cubin)
                    entries[result.variant.name] = BinarySpec(
                        offset=places[binary.cubin],
                        size=len(binary.cubin),
                        entry=binary.entry,
                        shared=binary.shared,
                        threads=32 * result.variant.num_warps,
                    )
    except OSError as error:
        raise _cannot(path, error) from error
    return found


def _cannot(path: Path, error: OSError) -> StorageError:
    return StorageError(f"cannot write {path}: {error.strerror or error}; free some space or choose another folder")
