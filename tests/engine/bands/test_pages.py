"""Memory for bands: used again where it fits, never while somebody has it, and never much that nobody has."""

import numpy as np
import pytest

from pocketxl.engine.bands import pages as of_pages
from pocketxl.engine.bands.pages import Pages


def test_what_is_given_back_is_taken_again() -> None:
    pages = Pages()
    first = pages.take((4, 1000), "float32")
    at = first.ctypes.data
    assert pages.take((4, 1000), "float32").ctypes.data != at
    pages.give(first)
    again = pages.take((15_000,), "uint8")
    assert (again.ctypes.data, again.shape, again.dtype.name) == (at, (15_000,), "uint8")
    assert pages.take((4, 1000), "float32").ctypes.data != at


@pytest.mark.parametrize("count", [3_000, 4_001])
def test_what_is_too_small_or_much_too_large_is_not(count: int) -> None:
    pages = Pages()
    first = pages.take((4_000,), "float32")
    at = first.ctypes.data
    pages.give(first)
    assert pages.take((count,), "float32").ctypes.data != at


def test_no_more_waits_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_pages, "FREE_BYTES", 3 * 4096)
    pages = Pages()
    arrays = [pages.take((4096,), "uint8") for _ in range(5)]
    for array in arrays:
        pages.give(array)
    assert sum(x.nbytes for x in pages._waiting) == 3 * 4096


def test_an_array_of_somebody_else_is_left_alone() -> None:
    pages = Pages()
    pages.give(np.zeros((2, 3)))
    pages.give(np.zeros((2, 3))[1:])
    assert pages._waiting == []
