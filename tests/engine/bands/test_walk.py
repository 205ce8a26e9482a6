"""The walk over bands, with segments in numpy: the same picture for every band height, edges and norms included."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketxl.engine.bands.program import DEVIATION, MEAN, ROWS, BandProgram, BandValue, Read, Segment
from pocketxl.engine.bands.sizes import working_bytes
from pocketxl.engine.bands.store import BandStore
from pocketxl.engine.bands.walk import Band, Lanes, Sums, bands, walk

from .test_read import PROGRAM

WIDE = 1 << 40


def blurred(x: np.ndarray) -> np.ndarray:
    """The sum of each row and its neighbours, without the first and the last row."""
    summed: np.ndarray = x[:, :, :-2] + x[:, :, 1:-1] + x[:, :, 2:]
    return summed


def run(band: Band) -> Sums | None:
    """`y` is 128 and the rows' sums of `x`, twice; `z` the normed and blurred `y`, and `x`, both doubled."""
    x = band.inputs["x"]
    if band.segment.value == "y":
        summed = blurred(x).repeat(2, axis=1)
        band.output[:] = (summed + 128).astype(np.uint8)
        numbers = band.output.astype(np.float64).reshape(8, -1) - 128
        return numbers.mean(1), numbers.var(1)
    mean, deviation = (band.inputs[name].reshape(1, -1, 1, 1) for name in (MEAN, DEVIATION))
    normed = ((band.inputs["y"].astype(np.float32) - 128) - mean) * deviation * band.inputs[ROWS]
    z = (blurred(normed)[:, :3] + x[:, :3]).repeat(2, axis=2).repeat(2, axis=3)
    band.output[:] = z
    return None


def whole(x: np.ndarray) -> np.ndarray:
    """The same without bands."""
    y = blurred(np.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))).repeat(2, axis=1)
    groups = y.reshape(1, 4, -1)
    normed = ((groups - groups.mean(2, keepdims=True)) / np.sqrt(groups.var(2, keepdims=True) + 1e-6)).reshape(y.shape)
    z = blurred(np.pad(normed, ((0, 0), (0, 0), (1, 1), (0, 0))))[:, :3] + x[:, :3]
    doubled: np.ndarray = z.repeat(2, axis=2).repeat(2, axis=3)
    return doubled


@pytest.mark.parametrize("numbers", [WIDE, 400, 200, 1])
@pytest.mark.parametrize("limit", [0, WIDE])
@pytest.mark.parametrize("lanes", [1, 2, 3])
@pytest.mark.parametrize("rows", [1, 2, 7])
def test_every_band_height_gives_the_picture(numbers: int, limit: int, rows: int, lanes: int) -> None:
    x = np.random.default_rng(rows).integers(-9, 9, (1, 4, rows, 5)).astype(np.float32)
    program = replace(PROGRAM, band_numbers=numbers)
    with ThreadPoolExecutor(lanes) as executor:
        side_by_side = Lanes(number=lanes, executor=executor if lanes > 1 else None)
        found = walk(program, x, run, BandStore(x.shape[3], limit), side_by_side)
    assert found == pytest.approx(whole(x), rel=1e-5, abs=1e-5)


def test_an_error_waits_for_the_bands_beside_it_before_their_memory_goes() -> None:
    """The first band fails while the others still write."""
    failed, over = threading.Event(), []

    class Watched(BandStore):
        def close(self) -> None:
            over.append("closed")
            super().close()

    def failing(band: Band) -> Sums | None:
        if not failed.is_set():
            failed.set()
            raise ValueError("the first")
        over.append("written")
        return run(band)

    program = replace(PROGRAM, band_numbers=1)
    x = np.zeros((1, 4, 7, 5), np.float32)
    with ThreadPoolExecutor(2) as executor, pytest.raises(ValueError, match="the first"):
        walk(program, x, failing, Watched(5, WIDE), Lanes(number=2, executor=executor))
    assert over[-1] == "closed"
    assert over.count("written") == 2, "the one beside it, and the one that waited"


HALVING = BandProgram(
    input="x",
    output="z",
    values={
        "x": BandValue(dtype="float32", channels=2, scale=4),
        "y": BandValue(dtype="float32", channels=2, scale=2),
        "z": BandValue(dtype="float32", channels=2, scale=1),
    },
    segments=(
        Segment(file="0.onnx", value="y", reads=(Read(value="x", halo=1, downward=True),)),
        Segment(file="1.onnx", value="z", reads=(Read(value="y", halo=1, downward=True),)),
    ),
)


def halved(x: np.ndarray) -> np.ndarray:
    """Of every second row the sum with the two below; every second column."""
    summed: np.ndarray = (x[:, :, :-2] + x[:, :, 1:-1] + x[:, :, 2:])[:, :, ::2, ::2]
    return summed


def run_halving(band: Band) -> None:
    (read,) = band.segment.reads
    band.output[:] = halved(band.inputs[read.value])


@given(rows=st.integers(1, 9), columns=st.integers(1, 5), numbers=st.integers(1, 200), limit=st.sampled_from([0, WIDE]))
def test_a_picture_is_halved_whatever_the_bands(rows: int, columns: int, numbers: int, limit: int) -> None:
    x = np.random.default_rng(rows).integers(-9, 9, (1, 2, 4 * rows, 4 * columns)).astype(np.float32)
    expected = x
    for _ in range(2):  # below the last row are zeros
        expected = halved(np.pad(expected, ((0, 0), (0, 0), (0, 1), (0, 0))))
    program = replace(HALVING, band_numbers=numbers)
    assert np.array_equal(walk(program, x, run_halving, BandStore(columns, limit)), expected)


@pytest.mark.parametrize(("rows", "columns"), [(64, 64), (13, 64), (256, 40), (1, 1)])
def test_bands_cover_every_row_once_and_are_about_equally_high(rows: int, columns: int) -> None:
    for segment in PROGRAM.segments:
        found = list(bands(PROGRAM, segment, rows, columns))
        assert [first for first, _ in found] == [sum(h for _, h in found[:i]) for i in range(len(found))]
        assert sum(height for _, height in found) == rows
        assert len({height for _, height in found[:-1]}) <= 1


def test_memory_is_limited_and_grows_with_the_picture() -> None:
    sizes = [working_bytes(PROGRAM, side * side) for side in (8, 64, 512, 2048)]
    assert sizes == sorted(sizes)
    limited = [working_bytes(PROGRAM, 2048 * 2048, limit=limit) for limit in (0, 20 << 20, 1 << 40)]
    assert limited[0] < limited[1] < limited[2]
    assert limited[1] <= limited[0] + (20 << 20)
