"""What the benchmark adds to the measures: pictures are made once, and compared seed by seed."""

import numpy as np
import pytest

from benchmarks.miniature import remembering, same_seeds
from pocketxl.export.miniature.evaluate import Request
from pocketxl.export.miniature.measures import Pictures

FIRST = Request(prompts=("an owl",), height=8, width=8)
SECOND = Request(prompts=("a fox", "an owl"), height=8, width=8)


def _grey(value: float, count: int = 1) -> Pictures:
    return np.full((count, 8, 8, 3), value, np.float32)


def test_a_picture_is_made_once() -> None:
    calls: list[Request] = []

    def make(request: Request) -> Pictures:
        calls.append(request)
        return _grey(0.5, len(request.prompts))

    made: dict[Request, Pictures] = {}
    remembered = remembering(make, made)
    assert remembered(FIRST) is remembered(Request(prompts=("an owl",), height=8, width=8))
    remembered(SECOND)
    assert calls == [FIRST, SECOND]
    assert list(made) == calls


def test_systems_are_compared_on_what_both_made() -> None:
    mine = {FIRST: _grey(0.5), SECOND: np.concatenate([_grey(0.6), _grey(0.51)])}
    theirs = {SECOND: _grey(0.5, 2)}
    mean, least, count = same_seeds(mine, theirs, "other")
    assert mean.case == "same_seeds_as_other"
    assert least.value == pytest.approx(20, abs=1e-3)  # an error of a tenth
    assert mean.value == pytest.approx(30, abs=1e-3)  # and one of a hundredth: 40 dB
    assert count.value == 2
    assert same_seeds({FIRST: _grey(0.5)}, theirs, "other") == []
