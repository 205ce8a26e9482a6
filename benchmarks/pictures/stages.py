"""How long the stages of a picture take, in what memory."""

import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol, Self

import numpy as np

from .cases import Case, prompt

RUNS = 3
SEED = 7
_EVERY = 0.01
"""Seconds between two looks at the memory."""


@dataclass(kw_only=True)
class Stages:
    """Seconds of one run: of the text; to the end of the first step, conditions included; of each step behind it.

    `decode`: from latents to pixels on the host. `pictures`: `[n, h, w, 3]` in 0 to 1.
    """

    encode: float
    first_step: float
    steps: Sequence[float]
    decode: float
    whole: float
    pictures: np.ndarray

    @classmethod
    def of(cls, started: float, marks: Sequence[float], sampled: float, done: float, pictures: np.ndarray) -> Self:
        """From the times of the beginning, of the text's end and each step's, of the last latents, and of the end."""
        between = [after - before for before, after in pairwise(marks)]
        return cls(
            encode=marks[0] - started,
            first_step=between[0],
            steps=between[1:],
            decode=done - sampled,
            whole=done - started,
            pictures=pictures,
        )


class Maker(Protocol):
    """A system that makes pictures."""

    def make(self, case: Case, text: str, seed: int) -> Stages:
        """One run; it returns when the pixels are on the host."""

    def in_use(self) -> int | None:
        """Bytes of the GPU's memory that are taken, by whomever; None where there is none."""

    def planned(self, case: Case) -> int | None:
        """Bytes of it that it said it would take; None for one that does not say."""


@dataclass
class Watch:
    """The most that was in use within."""

    most: int | None = None
    _done: threading.Event = field(default_factory=threading.Event)


@contextmanager
def watched(in_use: Callable[[], int | None]) -> Iterator[Watch]:
    """Look at the memory all the time, and at the end."""
    watch = Watch()

    def look() -> None:
        if (now := in_use()) is not None:
            watch.most = max(watch.most or 0, now)

    def keep_looking() -> None:
        while not watch._done.wait(_EVERY):
            look()

    thread = threading.Thread(target=keep_looking, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        watch._done.set()
        thread.join()
        look()


def measure(maker: Maker, case: Case, before: int | None) -> tuple[dict[str, float], np.ndarray]:
    """Medians of some runs after one that is not timed, each of another text; and the pictures of the last one.

    `before`: bytes in use before the system was there.
    """
    cold = time.perf_counter()
    maker.make(case, prompt(RUNS), SEED)
    found = {"first_seconds": time.perf_counter() - cold}
    with watched(maker.in_use) as watch:
        runs = [maker.make(case, prompt(run), SEED) for run in range(RUNS)]
    found["seconds"] = statistics.median(run.whole for run in runs)
    found["encode_seconds"] = statistics.median(run.encode for run in runs)
    found["first_step_seconds"] = statistics.median(run.first_step for run in runs)
    steps = [one for run in runs for one in run.steps]
    if steps:
        found["step_seconds"] = statistics.median(steps)
    found["decode_seconds"] = statistics.median(run.decode for run in runs)
    found["pictures_per_second"] = case.images / found["seconds"]
    if watch.most is not None and before is not None:
        found["peak_device_bytes"] = float(watch.most - before)
    if (planned := maker.planned(case)) is not None:
        found["planned_device_bytes"] = float(planned)
    return found, runs[-1].pictures
