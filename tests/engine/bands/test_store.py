"""What is put in comes out again, in memory or through a file, with neighbours' rows and zeros beyond the edge."""

import errno
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketxl.engine.bands.program import LAST, BandValue
from pocketxl.engine.bands.store import BandStore
from pocketxl.engine.errors import StorageError

COLUMNS = 3
BYTES = BandValue(dtype="uint8", channels=2, scale=2, zero=128)
FLOATS = BandValue(dtype="float32", channels=2, scale=2)
TOKENS = BandValue(dtype="float32", channels=4, scale=1, tokens=True)


def fill(store: BandStore, value: BandValue, heights: list[int]) -> np.ndarray:
    """The value, put in by bands; what it is as a whole."""
    rows = sum(heights)
    columns = COLUMNS * value.scale
    whole = np.random.default_rng(0).integers(0, 255, (1, value.channels, rows, columns)).astype(value.dtype)
    store.begin("v", value, rows)
    first = 0
    for height in heights:
        array = store.room("v", first, height)
        array[:] = whole[:, :, first : first + height]
        store.put("v", first, array)
        first += height
    return whole


@settings(max_examples=60, deadline=None)
@given(
    heights=st.lists(st.integers(1, 10), min_size=1, max_size=5),
    value=st.sampled_from([BYTES, FLOATS]),
    limit=st.sampled_from([0, 100, 1 << 20]),
    channels_last=st.booleans(),
    data=st.data(),
)
def test_any_rows_come_out_as_they_went_in(
    heights: list[int], value: BandValue, limit: int, channels_last: bool, data: st.DataObject
) -> None:
    store = BandStore(COLUMNS, limit, channels_last=channels_last)
    whole = fill(store, value, heights)
    rows = sum(heights)
    for _ in range(4):
        first = data.draw(st.integers(-2, rows - 1))
        count = data.draw(st.integers(1, rows + 2 - first))
        padded = np.pad(whole, ((0, 0), (0, 0), (2, 2), (0, 0)), constant_values=value.zero)
        found = store.read("v", first, count)
        assert np.array_equal(found, padded[:, :, first + 2 : first + 2 + count])
        assert (found.transpose(LAST) if channels_last else found).flags.c_contiguous
    assert store.held <= limit
    store.close()


def test_tokens_are_one_array_whatever_the_limit() -> None:
    store = BandStore(COLUMNS, 0)
    store.begin("k", TOKENS, 4)
    for row in range(0, 4, 2):
        array = store.room("k", row, 2)
        array[:] = row
        store.put("k", row, array)
    assert np.array_equal(store.read("k", 0, 1)[0, :, 0], np.repeat([0.0, 2.0], 2 * COLUMNS))
    store.free("k")
    assert store.held == 0
    store.close()


def test_rows_that_nobody_reads_any_more_are_given_up_and_their_place_in_the_file_is_used_again() -> None:
    store = BandStore(COLUMNS, 1 << 20)
    whole = fill(store, FLOATS, [2, 2, 2])
    store.free("v", 3)
    assert store.held == whole.nbytes * 2 // 3, "the band that row 3 is in stays"
    store.free("v")
    assert store.held == 0
    spilled = BandStore(COLUMNS, 0)
    for _ in range(3):
        fill(spilled, FLOATS, [2, 2])
        spilled.free("v")
    assert spilled.spilled == 2 * whole.nbytes // 3, "three times the same places"
    spilled.close()


def test_a_full_disk_is_a_storage_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(StorageError, match=r"No space left on device.*TMPDIR"):
        fill(BandStore(COLUMNS, 0), FLOATS, [2])


def test_tmpdir_says_where_the_file_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(StorageError, match="TMPDIR"):
        fill(BandStore(COLUMNS, 0), FLOATS, [2])
