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
    for part in parts(edge, array, sizes):
        made[part.value] = np.full(part.shape, 99, part.dtype)
        part.write(made[part.value])
    return made


def edge(layout: Layout, *shapes: tuple[int | str, ...], dtype: str = "float16") -> Edge:
    values = tuple(ValueSpec(name=str(i), shape=shape, dtype=dtype) for i, shape in enumerate(shapes))
    return Edge(tensor="tensor", layout=layout, values=values)


def numbers(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def test_pixels_have_their_channels_last_and_zeros_behind() -> None:
    array = numbers(2, 4, 3, 5)
    found = written(edge(Layout.PIXELS, ("batch", "height0", "width0", 16)), array)["0"]
    assert found.dtype == np.float16
    assert found.shape == (2, 3, 5, 16)
    assert found[1, 2, 4, 3] == array[1, 3, 2, 4]
    np.testing.assert_array_equal(found[..., :4], array.transpose(0, 2, 3, 1))
    assert not found[..., 4:].any()


def test_columns_become_a_block_each() -> None:
    array = numbers(2, 10)
    found = written(edge(Layout.COLUMNS, ("batch", 3), ("batch", 6), ("batch", 1)), array)
    np.testing.assert_array_equal(np.concatenate(list(found.values()), axis=1), array)
    assert [value.shape for value in found.values()] == [(2, 3), (2, 6), (2, 1)]


def test_rows_stay_as_they_are() -> None:
    array = numbers(2, 7, 4)
    found = written(edge(Layout.ROWS, ("batch", "tokens", 4), dtype="float32"), array)["0"]
    np.testing.assert_array_equal(found, array)
    assert found.dtype == np.float32


@pytest.mark.parametrize(
    ("made", "shape"),
    [
        (edge(Layout.PIXELS, ("batch", "height0", "width0", 2)), (2, 4, 3, 5)),
        (edge(Layout.PIXELS, ("batch", "width0", "height0", 4)), (2, 4, 3, 5)),
        (edge(Layout.PIXELS, ("batch", "height1", "width1", 4)), (2, 4, 3, 5)),
        (edge(Layout.COLUMNS, ("batch", 3), ("batch", 3)), (2, 5)),
        (edge(Layout.COLUMNS, ("batch", 3)), (2, 5)),
        (edge(Layout.ROWS, ("batch", "tokens", 8)), (2, 7, 4)),  # zeros are for pixels only
        (edge(Layout.ROWS, ("texts", 4)), (2, 7, 4)),
    ],
)
def test_a_program_of_other_shapes_is_refused(made: Edge, shape: tuple[int, ...]) -> None:
    with pytest.raises(IncompatibleError, match="tensor has shape"):
        written(made, numbers(*shape))


def there_and_back(made: Edge, spec: TensorSpec, array: np.ndarray, sizes: Sizes) -> np.ndarray:
    return fetched(made, spec, written(made, array, sizes))


@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 6), st.integers(1, 6), st.integers(0, 9))
def test_what_is_fetched_is_what_was_written(batch: int, channels: int, height: int, width: int, spare: int) -> None:
    sizes = Sizes(batch=batch, height=height, width=width)
    array = numbers(batch, channels, height, width)
    spec = TensorSpec(name="tensor", shape=("batch", channels, "height", "width"))
    made = edge(Layout.PIXELS, ("batch", "height0", "width0", channels + spare))
    found = there_and_back(made, spec, array, sizes)
    np.testing.assert_array_equal(found, array)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    assert found.flags.owndata


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_columns_are_fetched_side_by_side(widths: list[int]) -> None:
    array = numbers(2, sum(widths))
    spec = TensorSpec(name="tensor", shape=("batch", sum(widths)))
    made = edge(Layout.COLUMNS, *(("batch", width) for width in widths))
    np.testing.assert_array_equal(there_and_back(made, spec, array, SIZES), array)


def test_what_is_fetched_is_the_caller_s_own() -> None:
    here: dict[str, Any] = {"0": numbers(2, 7, 4)}
    spec = TensorSpec(name="tensor", shape=("batch", "tokens", 4))
    found = fetched(edge(Layout.ROWS, ("batch", "tokens", 4), dtype="float32"), spec, here)
    here["0"][:] = 0  # the next call writes there
    np.testing.assert_array_equal(found, numbers(2, 7, 4))
