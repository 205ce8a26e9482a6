"""Inputs and outputs between the order of the host and that of the program."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketxl.engine.errors import IncompatibleError
from pocketxl.engine.program.program import Edge, Layout, ValueSpec
from pocketxl.engine.program.sizes import Sizes
from pocketxl.engine.runners.cuda_edges import fetched, parts
from pocketxl.engine.specs import TensorSpec

SIZES = Sizes(batch=2, height=3, width=5, tokens=7)


def written(edge: Edge, array: np.ndarray, sizes: Sizes = SIZES) -> dict[str, np.ndarray]:
    """The values as they go to the GPU, in memory that held something else."""
    made = {}
    for part in parts(edge, array.shape, sizes):
        made[part.value] = np.full(part.shape, 99, part.dtype)
        part.write(made[part.value], array)
    return made


def edge(layout: Layout, *shapes: tuple[int | str, ...], dtype: str = "float16") -> Edge:
    values = tuple(ValueSpec(name=str(i), shape=shape, dtype=dtype) for i, shape in enumerate(shapes))
    return Edge(tensor="tensor", layout=layout, values=values)


def numbers(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def test_columns_become_a_block_each() -> None:
    array = numbers(2, 10)
    found = written(edge(Layout.COLUMNS, ("batch", 3), ("batch", 6), ("batch", 1)), array)
    np.testing.assert_array_equal(np.concatenate(list(found.values()), axis=1), array)
    assert [value.shape for value in found.values()] == [(2, 3), (2, 6), (2, 1)]


@pytest.mark.parametrize("shape", [("batch", "tokens", 4), ("batch", 4, "height0", "width0")])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rows_and_pictures_stay_as_they_are(shape: tuple[int | str, ...], dtype: str) -> None:
    array = numbers(*(SIZES[length] for length in shape))
    found = written(edge(Layout.ROWS, shape, dtype=dtype), array)["0"]
    np.testing.assert_array_equal(found, array)
    assert found.dtype == dtype


@pytest.mark.parametrize(
    ("made", "shape"),
    [
        (edge(Layout.ROWS, ("batch", 2, "height0", "width0")), (2, 4, 3, 5)),
        (edge(Layout.ROWS, ("batch", 4, "width0", "height0")), (2, 4, 3, 5)),
        (edge(Layout.ROWS, ("batch", 4, "height1", "width1")), (2, 4, 3, 5)),
        (edge(Layout.COLUMNS, ("batch", 3), ("batch", 3)), (2, 5)),
        (edge(Layout.COLUMNS, ("batch", 3)), (2, 5)),
        (edge(Layout.ROWS, ("batch", "tokens", 8)), (2, 7, 4)),
        (edge(Layout.ROWS, ("texts", 4)), (2, 7, 4)),
    ],
)
def test_a_program_of_other_shapes_is_refused(made: Edge, shape: tuple[int, ...]) -> None:
    with pytest.raises(IncompatibleError, match="tensor has shape"):
        written(made, numbers(*shape))


@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 6), st.integers(1, 6), st.integers(0, 9))
def test_pixels_are_fetched_with_their_channels_first(
    batch: int, channels: int, height: int, width: int, spare: int
) -> None:
    array = numbers(batch, height, width, channels + spare)
    spec = TensorSpec(name="tensor", shape=("batch", channels, "height", "width"))
    made = edge(Layout.PIXELS, ("batch", "height0", "width0", channels + spare))
    found = fetched(made, spec, {"0": array})
    assert found.shape == (batch, channels, height, width)
    for channel in range(channels):
        np.testing.assert_array_equal(found[:, channel], array[..., channel])
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    assert found.flags.owndata


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_columns_are_fetched_side_by_side(widths: list[int]) -> None:
    array = numbers(2, sum(widths))
    spec = TensorSpec(name="tensor", shape=("batch", sum(widths)))
    made = edge(Layout.COLUMNS, *(("batch", width) for width in widths))
    np.testing.assert_array_equal(fetched(made, spec, written(made, array)), array)


def test_what_is_fetched_is_the_caller_s_own() -> None:
    here: dict[str, Any] = {"0": numbers(2, 7, 4)}
    spec = TensorSpec(name="tensor", shape=("batch", "tokens", 4))
    found = fetched(edge(Layout.ROWS, ("batch", "tokens", 4), dtype="float32"), spec, here)
    here["0"][:] = 0  # the next call writes there
    np.testing.assert_array_equal(found, numbers(2, 7, 4))
