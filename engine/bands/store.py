"""Where the values of a whole picture lie: bands of rows in memory, and beyond a limit in a temporary file.

The file has no name, so it is gone with the process whatever happens. Its pages belong to the system's cache, which
gives them up when others need them.
"""

import os
import tempfile
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from ..errors import StorageError
from .pages import Pages
from .program import FIRST, LAST, BandValue

EDGES_FROM = 8
"""Rows from which on a band's first and last row are written to the file once more: they are what the bands beside it
read, and lie there channel by channel, a call of the system each. In lower bands they would be most of it."""
_DISK = Path("/var/tmp")  # noqa: S108 — an anonymous file; /tmp is memory on many systems


@dataclass(frozen=True, kw_only=True)
class _Band:
    """Rows of a value from `first`: an array, or where in the file they are."""

    first: int
    rows: int
    shape: tuple[int, ...]
    size: int
    array: np.ndarray | None
    at: int = -1

    @property
    def end(self) -> int:
        """The row behind its last one."""
        return self.first + self.rows


class BandStore:
    """Values of pictures of `columns` latent columns; `limit` bytes of them are in memory. Close it.

    With `channels_last` its arrays are views of memory in which a pixel's channels lie beside each other.
    """

    def __init__(self, columns: int, limit: int, *, channels_last: bool = False) -> None:
        self._columns = columns
        self._limit = limit
        self._channels_last = channels_last
        self._pages = Pages()
        self._values: dict[str, tuple[BandValue, list[_Band]]] = {}
        self._whole: dict[str, np.ndarray] = {}
        self._scratch: dict[tuple[str, int], np.ndarray] = {}
        self._file: IO[bytes] | None = None
        self._holes: dict[int, list[int]] = {}
        self.held = 0
        """Bytes in memory now."""
        self.spilled = 0
        """How long the file has become."""

    def begin(self, name: str, value: BandValue, rows: int) -> None:
        """A value of so many rows, which come in order from the top."""
        self._values[name] = (value, [])
        if value.tokens:  # attention wants them in one piece
            self._whole[name] = self._pages.take((1, rows * value.scale * self._columns, value.channels), value.stored)
            self.held += self._whole[name].nbytes

    def room(self, name: str, first: int, rows: int) -> np.ndarray:
        """An array for rows of the value, to be filled and given to `put`."""
        value, _ = self._values[name]
        columns = value.scale * self._columns
        if value.tokens:
            return self._whole[name][:, first * columns : (first + rows) * columns]
        return self._view(self._pages.take((rows * columns * value.channels,), value.stored), value.channels, rows)

    def put(self, name: str, first: int, array: np.ndarray) -> None:
        """Keep the rows from `first`, the next ones; the array is the store's from now on."""
        value, bands = self._values[name]
        if value.tokens:
            return
        fits = self.held + array.nbytes <= self._limit
        at = -1 if fits else self._write(array)
        if not fits:
            self._pages.give(array)
        bands.append(
            _Band(
                first=first, rows=array.shape[2], shape=array.shape, size=array.nbytes,
                array=array if fits else None, at=at,
            )
        )  # fmt: skip
        self.held += array.nbytes if fits else 0

    def read(self, name: str, first: int, rows: int, turn: int = 0) -> np.ndarray:
        """Rows from `first` on, those outside the picture full of what stands for 0; a whole value's are all.

        Valid until rows of the value are read in the same turn again.
        """
        value, bands = self._values[name]
        if value.tokens:
            return self._whole[name]
        bands = bands[_index(bands, first) : _index(bands, first + rows - 1) + 1]
        for band in bands:
            if (band.first, band.rows) == (first, rows) and band.array is not None:
                return band.array
        count = value.channels * rows * value.scale * self._columns
        found = self._view(self._scratch_for((name, turn), count, value.stored), value.channels, rows)
        filled = np.zeros(rows, bool)
        for band in bands:
            low, high = max(first, band.first), min(first + rows, band.first + band.rows)
            if low < high:
                part = found[:, :, low - first : high - first]
                if band.array is None:
                    self._read_file(band, low - band.first, part)
                else:
                    part[:] = band.array[:, :, low - band.first : high - band.first]
                filled[low - first : high - first] = True
        found[:, :, ~filled] = value.zero
        return found

    def free(self, name: str, before: int | None = None) -> None:
        """Forget the rows above `before`, or the whole value."""
        bands = self._values[name][1]
        count = len(bands) if before is None else next((i for i, b in enumerate(bands) if b.end > before), len(bands))
        for band in bands[:count]:
            if band.array is None:
                self._holes.setdefault(band.size, []).append(band.at)
            else:
                self.held -= band.size
                self._pages.give(band.array)
        del bands[:count]
        if before is None:
            del self._values[name]
            for key in [key for key in self._scratch if key[0] == name]:
                self._pages.give(self._scratch.pop(key))
            if name in self._whole:
                whole = self._whole.pop(name)
                self.held -= whole.nbytes
                self._pages.give(whole)

    def close(self) -> None:
        """Forget everything."""
        self._values, self._whole, self._scratch, self.held = {}, {}, {}, 0
        self._pages = Pages()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _view(self, numbers: np.ndarray, channels: int, rows: int) -> np.ndarray:
        """So many numbers as `[1, channels, rows, columns]`."""
        if self._channels_last:
            return numbers.reshape(1, rows, -1, channels).transpose(FIRST)
        return numbers.reshape(1, channels, rows, -1)

    def _laid(self, array: np.ndarray) -> np.ndarray:
        """What `_view` shows, as it lies in memory."""
        return array.transpose(LAST) if self._channels_last else array

    def _scratch_for(self, key: tuple[str, int], count: int, dtype: str) -> np.ndarray:
        """The same memory whenever it is the same turn."""
        if key not in self._scratch or self._scratch[key].size < count:
            self._scratch[key] = self._pages.take((count,), dtype)
        return self._scratch[key][:count]

    def _read_file(self, band: _Band, row: int, part: np.ndarray) -> None:
        """A band's rows from `row` on, as many as `part` has."""
        if self._channels_last:
            row_bytes = band.size // band.rows
            self._fill(band.at + row * row_bytes, self._laid(part))
            return
        rows, columns = part.shape[2:]
        step = columns * part.itemsize
        at, stride, together = band.at + row * step, band.rows * step, rows == band.rows
        if not together and is_edge(band.rows, row, rows):
            at, stride, together = band.at + band.size + (row > 0) * band.shape[1] * step, step, True
        channels = band.shape[1] if together else 1
        piece = self._scratch_for((part.dtype.name, 0), channels * rows * columns, part.dtype.name)
        piece = piece.reshape(channels, rows, columns)
        for channel in range(0, band.shape[1], channels):
            self._fill(at + channel * stride, piece)
            part[0, channel : channel + channels] = piece

    def _fill(self, at: int, piece: np.ndarray) -> None:
        """What the file has from `at` on; `piece` is in one piece."""
        assert self._file is not None
        try:
            self._file.seek(at)
            if self._file.readinto(piece.data.cast("B")) != piece.nbytes:  # type: ignore[attr-defined]
                raise StorageError("a temporary file gave less back than was written to it; try again")
        except OSError as error:
            raise _storage(error) from error

    def _write(self, array: np.ndarray) -> int:
        free = self._holes.get(array.nbytes)
        at = free.pop() if free else self.spilled
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(buffering=0, dir=_folder())  # noqa: SIM115 — `close` does
            self._file.seek(at)
            apart = not self._channels_last and array.shape[2] >= EDGES_FROM
            edges = (array[:, :, :1], array[:, :, -1:]) if apart else ()
            for piece in (self._laid(array), *edges):
                data = np.ascontiguousarray(piece).data.cast("B")
                while data:
                    data = data[self._file.write(data) :]
        except OSError as error:
            raise _storage(error) from error
        self.spilled = max(self.spilled, self._file.tell())
        return at


def _index(bands: list[_Band], row: int) -> int:
    """Which of them has a row; the first or the last one's for one above or below all."""
    return max(0, bisect_right(bands, row, key=lambda band: band.first) - 1)


def is_edge(band: int, row: int, rows: int) -> bool:
    """Whether the rows from `row` of a band of so many are one that the file has in one piece."""
    return band >= EDGES_FROM and rows == 1 and row in (0, band - 1)


def _folder() -> str | None:
    """Where temporary files are on a disk; None: the system's own choice, and what TMPDIR names."""
    chosen = "TMPDIR" in os.environ or not os.access(_DISK, os.W_OK)
    return None if chosen else str(_DISK)


def _storage(error: OSError) -> StorageError:
    return StorageError(
        f"a temporary file for a picture of this size cannot be used: {error.strerror or error}; free some space, name "
        "another folder with the environment variable TMPDIR, or make a smaller picture"
    )
