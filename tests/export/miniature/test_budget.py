"""A run that is measured in time ends at its limit without a jump."""

from itertools import pairwise

import pytest

from pocketxl.export.miniature.budget import Budget


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_minutes_pass_evenly() -> None:
    clock = Clock()
    budget = Budget(minutes=1, clock=clock)
    seen = []
    for _ in range(6):
        clock.now += 10
        seen.append(budget.advance())
    assert seen == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1])


def test_a_suspended_process_keeps_its_budget() -> None:
    clock = Clock()
    budget = Budget(minutes=1, clock=clock)
    clock.now += 3600
    assert budget.advance() == pytest.approx(Budget.longest / 60)


def test_a_deadline_shortens_the_rest_smoothly() -> None:
    clock = Clock()
    budget = Budget(minutes=100, deadline=clock.now + 60, clock=clock)
    steps = [budget.progress]
    for _ in range(6):
        clock.now += 10
        steps.append(budget.advance())
    assert steps[-1] == 1
    assert max(b - a for a, b in pairwise(steps)) == pytest.approx(1 / 6)


def test_steps_are_counted_exactly() -> None:
    budget = Budget(steps=7)
    assert [budget.advance() == 1 for _ in range(7)] == [False] * 6 + [True]


def test_state_continues() -> None:
    clock = Clock()
    first = Budget(minutes=1, clock=clock)
    clock.now += 15
    first.advance()
    second = Budget(minutes=1, clock=clock)
    second.load_state_dict(first.state_dict())
    clock.now += 15
    assert second.advance() == pytest.approx(0.5)


def test_exactly_one_limit() -> None:
    with pytest.raises(ValueError, match="not both"):
        Budget()
    with pytest.raises(ValueError, match="not both"):
        Budget(minutes=1, steps=1)


def test_no_minutes_are_a_finished_run() -> None:
    assert Budget(minutes=0).progress == 1


def test_a_finished_run_goes_on_with_more_minutes() -> None:
    clock = Clock()
    finished = {"active": 60.0, "progress": 1.0}
    same, longer, late = Budget(minutes=1), Budget(minutes=4), Budget(minutes=4, deadline=clock.now - 1, clock=clock)
    for budget in (same, longer, late):
        budget.load_state_dict(finished)
    assert [same.progress, longer.progress, late.progress] == [1, 0.25, 1]
