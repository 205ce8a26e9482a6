"""Statistics of a whole picture, joined from bands of any height, are those of the picture."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketxl.engine.bands.norms import Statistics
from pocketxl.engine.bands.program import Norm

CHANNELS, COLUMNS = 6, 5


@settings(max_examples=30, deadline=None)
@given(heights=st.lists(st.integers(1, 7), min_size=1, max_size=6), offset=st.sampled_from([0.0, 3.0, 60000.0]))
def test_bands_of_any_height_give_the_statistics_of_all_rows(heights: list[int], offset: float) -> None:
    rng = np.random.default_rng(sum(heights))
    picture = rng.standard_normal((CHANNELS, sum(heights), COLUMNS)) * np.arange(1, 7)[:, None, None] + offset
    seen, first = Statistics(CHANNELS), 0
    for height in heights:
        band = picture[:, first : first + height].reshape(CHANNELS, -1)
        seen.add(band.shape[1], band.mean(1), band.var(1))
        first += height
    groups = picture.reshape(3, -1)
    mean, deviation = seen.of(Norm(groups=3, epsilon=1e-6))
    assert mean.dtype == deviation.dtype == np.float32
    assert mean == pytest.approx(groups.mean(1).repeat(2), rel=1e-6)
    assert deviation == pytest.approx(1 / np.sqrt(groups.var(1) + 1e-6).repeat(2), rel=1e-6)
