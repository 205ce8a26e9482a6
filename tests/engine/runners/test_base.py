"""What every runner's outputs are held to."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pocketxl.engine.errors import NumericError
from pocketxl.engine.runners.base import check_outputs

BITS = st.integers(0, 2**16 - 1)


@given(arrays(np.uint16, st.integers(0, 9), elements=BITS))
def test_halves_of_any_bits_are_told_as_numpy_tells_them(bits: np.ndarray) -> None:
    values = bits.view(np.float16)
    if np.isfinite(values).all():
        check_outputs("part", {"out": values})
    else:
        with pytest.raises(NumericError, match=r"part gave NaN or Inf \(out\)"):
            check_outputs("part", {"out": values})


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_one_number_is_enough(dtype: str, wrong: float) -> None:
    values = np.zeros((3, 4, 5), dtype)
    check_outputs("part", {"out": values})
    values[2, 1, 4] = wrong
    with pytest.raises(NumericError, match="part gave NaN"):
        check_outputs("part", {"out": values.transpose(2, 0, 1)})
