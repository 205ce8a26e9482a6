"""The time left over all stages and pictures, against a run whose every duration is known."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from pocketxl.engine.remaining import DECODE_IN_STEPS, Remaining, in_words


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def run(pictures: int, *, steps: int, step: float, load: float, decode: float) -> Iterator[tuple[str, float | None]]:
    """Each event's stage, and the seconds that are told less those that are truly left."""
    clock = Clock()
    remaining = Remaining(pictures, clock=clock)
    end = clock.now + pictures * (load + steps * step + decode)

    def tell(stage: str, number: int, total: int, *, done: bool = False) -> tuple[str, float | None]:
        told = remaining.told(stage, number, total, done=done)
        return stage, None if told is None else told - (end - clock.now)

    for picture in range(1, pictures + 1):
        assert remaining.current == picture
        yield tell("denoise", 0, steps)
        clock.now += load
        yield tell("load", 1, 1, done=True)
        for number in range(1, steps + 1):
            clock.now += step
            yield tell("denoise", number, steps)
        yield tell("denoise", steps, steps, done=True)
        yield tell("decode", 0, 1)
        clock.now += decode
        yield tell("decode", 1, 1)
        yield tell("decode", 1, 1, done=True)


def test_after_one_picture_the_rest_is_known() -> None:
    offs = list(run(4, steps=5, step=2.0, load=1.0, decode=7.0))
    second = offs[len(offs) // 4 :]
    assert all(off is not None and abs(off) <= 1.0 for stage, off in second), second  # the load comes before the steps
    assert offs[-1][0] == "decode"
    assert offs[-1][1] == pytest.approx(0)


def test_the_first_picture_is_guessed_from_its_second_step_on() -> None:
    offs = [off for _, off in run(1, steps=5, step=2.0, load=9.0, decode=DECODE_IN_STEPS * 2.0)]
    assert offs[:3] == [None, None, None]
    assert offs[3:] == pytest.approx([0.0] * (len(offs) - 3))


def test_one_step_is_never_timed_but_the_picture_is() -> None:
    offs = [off for _, off in run(2, steps=1, step=2.0, load=1.0, decode=3.0)]
    assert offs[: len(offs) // 2 - 1] == [None] * (len(offs) // 2 - 1)
    assert offs[len(offs) // 2 - 1 :] == pytest.approx([0.0] * (len(offs) // 2 + 1))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "about 5 s left"),
        (41.0, "about 40 s left"),
        (56.0, "about 1 min left"),
        (190.0, "about 3 min left"),
        (3599.0, "about 1 h 0 min left"),
        (4801.0, "about 1 h 20 min left"),
    ],
)
def test_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
