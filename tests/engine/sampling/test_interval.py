"""Where guidance rests, by shares of the trained timesteps."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pocketxl.engine.sampling.interval import guided_evaluations
from pocketxl.engine.sampling.schedule import split

from ...fixtures.schedulers import SDXL, our_schedule


def test_all_of_the_way_by_default() -> None:
    plan = our_schedule(SDXL, timesteps=[999, 500, 0])
    assert guided_evaluations(plan, 0.0, 1.0) == (True, True, True)


def test_shares_are_those_of_denoising_end() -> None:
    plan = our_schedule(SDXL, num_inference_steps=20)
    first, _ = split(plan, 0.4)
    assert sum(guided_evaluations(plan, 0.0, 0.4)) == len(first.evaluations)
    assert guided_evaluations(first, 0.0, 0.4) == (True,) * len(first.evaluations)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 0.99), st.integers(1, 40))
def test_an_interval_is_one_run_and_parts_see_their_own(one: float, other: float, cut: float, steps: int) -> None:
    start, end = sorted((one, other))
    plan = our_schedule(SDXL, "heun", num_inference_steps=steps)
    guided = guided_evaluations(plan, start, end)
    assert len(guided) == len(plan.evaluations)
    changes = sum(a != b for a, b in pairwise(guided))
    assert changes <= 2
    before = guided_evaluations(plan, 0.0, start) if start else (False,) * len(guided)
    after = guided_evaluations(plan, end, 1.0)
    if start > 0 and end < 1:
        assert all(a or b or c for a, b, c in zip(before, guided, after, strict=True))
    for part in split(plan, cut):
        assert guided_evaluations(part, start, end) == guided[part.begin : part.end]
