"""The reference run's samples and calibration, read from the work folder when a component needs them.

All of them together are some gigabytes of a full-size pair, which would lie there while a compiler needs the memory.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Generic, TypeVar

from ...engine.folder.samples import Sample
from ..quantize.calibration import Calibration
from .store import ReferenceStore

T = TypeVar("T")
_KEPT = 2
"""Components whose calibration stays: a U-Net and its conditioner are smoothed together."""


class Stored(Mapping[str, T], Generic[T]):
    """By component, each read when it is asked for."""

    def __init__(self, names: Sequence[str], read: Callable[[str], T]) -> None:
        self._names = tuple(names)
        self._read = read

    def __getitem__(self, name: str) -> T:
        if name not in self._names:
            raise KeyError(name)
        return self._read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def stored_samples(store: ReferenceStore, parts: int, names: Sequence[str]) -> Mapping[str, list[Sample]]:
    """The samples of the first `parts` parts, by component; nothing is kept. Raises `StorageError`."""

    def read(name: str) -> list[Sample]:
        return [sample for index in range(parts) for sample in store.read_samples(index, name)]

    return Stored(names, read)


def stored_calibration(store: ReferenceStore, parts: int, names: Sequence[str]) -> Mapping[str, Calibration]:
    """What layers showed in those parts, each a run of its own. Raises `StorageError`."""

    @lru_cache(_KEPT)
    def read(name: str) -> Calibration:
        return Calibration.of_runs(store.read_calibration(index, name) for index in range(parts))

    return Stored(names, read)
