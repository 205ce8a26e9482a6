"""Where the values of a whole picture lie that is computed in bands: on the GPU, each band in memory of its own."""

from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from ..bands.program import BandValue
from .device import CudaArray, CudaDevice


@dataclass(frozen=True, eq=False, kw_only=True)
class _Band:
    first: int
    rows: int
    array: CudaArray


@dataclass(eq=False, kw_only=True)
class _Kept:
    """A value: its bands from the top, or all of it as attention wants it; and memory for rows that bands share."""

    value: BandValue
    bands: list[_Band] = field(default_factory=list)
    whole: CudaArray | None = None
    scratch: CudaArray | None = None


class DeviceStore:
    """As `bands.store.BandStore`, for a picture of `columns` latent columns. What is read is copied behind what runs.

    Nothing waits: everything happens on the device's one stream. Raises `MemoryBudgetError`.
    """

    def __init__(self, device: CudaDevice, columns: int) -> None:
        self._device = device
        self._columns = columns
        self._values: dict[str, _Kept] = {}

    def begin(self, name: str, value: BandValue, rows: int) -> None:
        """See `bands.walk.Store`."""
        kept = self._values[name] = _Kept(value=value)
        if value.tokens:
            kept.whole = self._empty(value, (1, rows * value.scale * self._columns, value.channels))

    def room(self, name: str, first: int, rows: int) -> CudaArray:
        """See `bands.walk.Store`."""
        value = self._values[name].value
        columns = value.scale * self._columns
        tokens, picture = (1, rows * columns, value.channels), (1, value.channels, rows, columns)
        return self._empty(value, tokens if value.tokens else picture)

    def put(self, name: str, first: int, array: Any) -> None:
        """See `bands.walk.Store`; an array of numpy's is uploaded."""
        kept = self._values[name]
        there = self._device.array(array, np.dtype(kept.value.dtype))
        if kept.whole is None:
            kept.bands.append(_Band(first=first, rows=there.shape[2], array=there))
            return
        at = first * self._row_bytes(kept.value) * kept.value.channels
        self._device.driver.copy(kept.whole.address + at, there.address, prod(there.shape) * kept.value.item_bytes)
        there.release()

    def read(self, name: str, first: int, rows: int, turn: int = 0) -> CudaArray:
        """See `bands.walk.Store`; valid until rows of the same value are read again: one stream has one turn."""
        kept = self._values[name]
        if kept.whole is not None:
            return kept.whole
        for band in kept.bands:
            if (band.first, band.rows) == (first, rows):
                return band.array
        found = self._scratch(kept, rows)
        filled = 0
        for band in kept.bands:
            low, high = max(first, band.first), min(first + rows, band.first + band.rows)
            if low < high:
                self._copy(kept.value, found, rows, low - first, band, low - band.first, high - low)
                filled += high - low
        if filled < rows:
            self._clear(kept.value, found, first, rows, kept.bands)
        return found

    def free(self, name: str, before: int | None = None) -> None:
        """See `bands.walk.Store`."""
        kept = self._values[name]
        left = [] if before is None else [band for band in kept.bands if band.first + band.rows > before]
        for band in kept.bands[: len(kept.bands) - len(left)]:
            band.array.release()
        kept.bands = left
        if before is None:
            for array in (kept.whole, kept.scratch):
                if array is not None:
                    array.release()
            del self._values[name]

    def close(self) -> None:
        """Forget everything."""
        for name in list(self._values):
            self.free(name)

    def _empty(self, value: BandValue, shape: tuple[int, ...]) -> CudaArray:
        return self._device.empty(shape, np.dtype(value.dtype))

    def _scratch(self, kept: _Kept, rows: int) -> CudaArray:
        """The same memory from band to band."""
        shape = (1, kept.value.channels, rows, kept.value.scale * self._columns)
        if kept.scratch is None or kept.scratch.capacity < kept.value.pixel_bytes * rows * shape[3]:
            if kept.scratch is not None:
                kept.scratch.release()
            kept.scratch = self._empty(kept.value, shape)
        return kept.scratch.shaped(shape)

    def _row_bytes(self, value: BandValue) -> int:
        return value.item_bytes * value.scale * self._columns

    def _copy(
        self, value: BandValue, to: CudaArray, rows: int, at: int, band: _Band, row: int, count: int
    ) -> None:  # fmt: skip
        """`count` rows of every channel from a band's `row` on to `at`."""
        width = self._row_bytes(value)
        self._device.driver.copy_pitched(
            to.address + at * width, rows * width, band.array.address + row * width, band.rows * width,
            width=count * width, height=value.channels,
        )  # fmt: skip

    def _clear(self, value: BandValue, to: CudaArray, first: int, rows: int, bands: list[_Band]) -> None:
        """Zeros where the picture has no rows: above its first, and below its last one."""
        width = self._row_bytes(value)
        above = max(0, bands[0].first - first)
        below = max(0, first + rows - bands[-1].first - bands[-1].rows)
        for at, count in ((0, above), (rows - below, below)):
            if count:
                self._device.driver.clear_pitched(
                    to.address + at * width, rows * width, width=count * width, height=value.channels
                )
