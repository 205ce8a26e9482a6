"""The timing harness on a fake stopwatch: what is repeated, on how many copies, and what is reported."""

from collections.abc import Callable, Sequence

import pytest

from pocketxl.kernels.timing import COPIES_AT_MOST, copies_for, measure


class Fake:
    """Replays take the seconds that are listed, then the last of them for ever."""

    def __init__(self, *seconds: float) -> None:
        self.list = list(seconds)
        self.recorded = 0
        self.replayed = 0

    def record(self, work: Sequence[Callable[[], object]]) -> Callable[[], object]:
        self.recorded += 1
        return lambda: [item() for item in work]

    def seconds(self, replay: Callable[[], object]) -> float:
        replay()
        self.replayed += 1
        return self.list.pop(0) if len(self.list) > 1 else self.list[0]


def test_the_time_of_a_run_is_the_median_over_copies_without_the_first_replay() -> None:
    watch = Fake(99.0, 4.0, 1.0, 2.0, 3.0, 50.0)
    runs = [0, 0]

    def work(i: int) -> Callable[[], object]:
        def run() -> None:
            runs[i] += 1

        return run

    timing = measure([work(0), work(1)], watch, enough=0, least=5)
    assert timing.seconds == 3.0 / 2
    assert timing.lower <= timing.seconds <= timing.upper
    assert timing.replays == 5
    assert runs == [6, 6]
    assert watch.recorded == 1


@pytest.mark.parametrize(("each", "replays"), [(1.0, 7), (0.01, 10), (0.0001, 50)])
def test_replays_go_on_until_they_are_enough(each: float, replays: int) -> None:
    assert measure([lambda: None], Fake(each), enough=0.0999).replays == replays


def test_copies_are_more_than_twice_the_cache() -> None:
    cache = 50 * 2**20
    for size in (2**20, 7 * 2**20, 30 * 2**20):
        assert copies_for(size, cache) * size > 2 * cache
        assert (copies_for(size, cache) - 1) * size <= 2 * cache
    assert copies_for(2**32, cache) == 2
    assert copies_for(1000, cache) == COPIES_AT_MOST
