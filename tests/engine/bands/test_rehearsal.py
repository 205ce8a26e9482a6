"""A rehearsed walk takes what the real one does, page by page."""

import weakref
from concurrent.futures import Executor, Future
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketxl.engine.bands import pages, rehearsal
from pocketxl.engine.bands.program import BandProgram, BandValue, Norm, Read, Segment
from pocketxl.engine.bands.rehearsal import rehearsed_bytes
from pocketxl.engine.bands.store import BandStore
from pocketxl.engine.bands.walk import Band, Lanes, Sums, walk

from .test_read import PROGRAM
from .test_walk import HALVING

ATTENTION = BandProgram(
    input="x",
    output="z",
    values={
        "x": BandValue(dtype="float32", channels=4, scale=1),
        "y": BandValue(dtype="float32", channels=6, scale=1, norm=Norm(groups=2, epsilon=1e-6)),
        "k": BandValue(dtype="float32", channels=6, scale=1, tokens=True),
        "w": BandValue(dtype="uint8", channels=6, scale=2),
        "z": BandValue(dtype="float32", channels=3, scale=2),
    },
    segments=(
        Segment(file="0.onnx", value="y", reads=(Read(value="x", halo=1),)),
        Segment(file="1.onnx", value="k", reads=(Read(value="y", halo=0),), norm="y"),
        Segment(file="2.onnx", value="w", reads=(Read(value="y", halo=0), Read(value="k", halo=0)), norm="y"),
        Segment(file="3.onnx", value="z", reads=(Read(value="w", halo=1), Read(value="y", halo=1))),
    ),
    scores=64,
)
PROGRAMS = (PROGRAM, HALVING, ATTENTION)


class Counted(pages.Pages):
    """Pages that know how many bytes of theirs are out or wait."""

    def __init__(self) -> None:
        super().__init__()
        self.out = 0

    def _new(self, size: int) -> np.ndarray:
        whole = super()._new(size)
        self.out += size
        weakref.finalize(whole, self._gone, size)
        return whole

    def _gone(self, size: int) -> None:
        self.out -= size


@pytest.fixture(autouse=True)
def without_arena(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a call itself nothing is counted, and few pages wait."""
    for module in (pages, rehearsal):
        monkeypatch.setattr(module, "FREE_BYTES", 600)
    monkeypatch.setattr(rehearsal._Rehearsal, "_call", lambda *_: (0, 0))


class AtOnce(Executor):
    """Computes when asked to, so that what is done beside it is still to come."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> "Future[Any]":
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


def taken(program: BandProgram, rows: int, columns: int, limit: int, lanes: int) -> int:
    """The most that a real walk has in pages, with what is done of its output."""
    store = BandStore(columns, limit)
    counted = store._pages = Counted()
    out, most = program.values[program.output], 0
    done = 0

    def run(band: Band) -> Sums | None:
        nonlocal most, done
        ends = band.segment.value == program.output
        done += band.output.nbytes if ends else 0
        most = max(most, counted.out + done)
        zeros: Any = np.zeros(band.channels)
        return (zeros, zeros) if program.values[band.segment.value].norm else None

    given = program.values[program.input]
    shape = (1, given.channels, given.scale * rows, given.scale * columns)
    walk(program, np.zeros(shape, np.float32), run, store, Lanes(number=lanes, executor=AtOnce()))
    assert done == out.pixel_bytes * out.scale**2 * rows * columns
    return most


@settings(max_examples=150, deadline=None)
@given(
    program=st.sampled_from(PROGRAMS),
    rows=st.integers(1, 12),
    columns=st.integers(1, 6),
    numbers=st.integers(1, 300),
    limit=st.sampled_from([0, 300, 1000, 1 << 40]),
    lanes=st.integers(1, 3),
)
def test_it_is_what_pages_a_walk_has(
    program: BandProgram, rows: int, columns: int, numbers: int, limit: int, lanes: int
) -> None:
    program = replace(program, band_numbers=numbers)
    assert rehearsed_bytes(program, rows, columns, limit, lanes) == taken(program, rows, columns, limit, lanes)
