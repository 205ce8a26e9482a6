"""Progress of long work (build stages, sampler steps) as events, and the three places they can go.

with track(progress, "denoise", total=20, unit="step") as advance:
    for …:
        advance()
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TextIO

from .remaining import Remaining, in_words
from .terminal import printable

LOAD = "load"
"""The stage of a component that is brought into memory, inside other stages."""


@dataclass(frozen=True, kw_only=True)
class ProgressEvent:
    """`step` of `total` units of `stage` are done (`total` None: unknown), `seconds` after the stage began.

    A stage begins with step 0, and has `done` true in its last event, also when it was left early.
    """

    stage: str
    step: int
    total: int | None
    unit: str
    seconds: float
    detail: str = ""
    done: bool = False


class Progress(Protocol):
    """Where events go."""

    def __call__(self, event: ProgressEvent) -> None:
        """Take one event; must be quick and must not raise."""


class Silent:
    """Nowhere."""

    def __call__(self, event: ProgressEvent) -> None:
        """Drop the event."""


class JsonLines:
    """One JSON object a line, for scripts: `{"event": "progress", "stage": …, "step": …, "rate": …, "remaining": …}`.

    `rate` is units a second, `remaining` seconds (null while unknown). Where `pictures` are made one after another,
    `picture` is the one being made, from 1, and `remaining_total` the seconds left of all stages of all of them.
    """

    def __init__(self, stream: TextIO, *, pictures: int | None = None) -> None:
        self._stream = stream
        self._remaining = None if pictures is None else Remaining(pictures)

    def __call__(self, event: ProgressEvent) -> None:
        """Write one line and flush it."""
        rate = event.step / event.seconds if event.step and event.seconds > 0 else None
        remaining = (event.total - event.step) / rate if rate and event.total is not None else None
        line: dict[str, Any] = {"event": "progress", **asdict(event), "rate": rate, "remaining": remaining}
        if self._remaining is not None:
            line["picture"] = self._remaining.current
            line["remaining_total"] = self._remaining.told(event.stage, event.step, event.total, done=event.done)
        self._stream.write(json.dumps(line) + "\n")
        self._stream.flush()


class Bars:
    """A tqdm bar per stage on `stream` (default: standard error), with rate and remaining time.

    Where `pictures` are made one after another, each bar names the picture and the time left in all. Nothing is drawn
    where the stream is not a terminal, unless `always` is set. Needs the package tqdm.
    """

    def __init__(self, stream: TextIO | None = None, *, always: bool = False, pictures: int | None = None) -> None:
        self._stream = stream
        self._disable = False if always else None
        self._remaining = None if pictures is None else Remaining(pictures)
        self._bars: dict[str, Any] = {}

    def __call__(self, event: ProgressEvent) -> None:
        """Open, move or close the stage's bar."""
        bar = self._bars.get(event.stage)
        if bar is None:
            bar = self._open(event)
        notes = [printable(event.detail)] if event.detail and event.stage != LOAD else []
        if self._remaining is not None:
            left = self._remaining.told(event.stage, event.step, event.total, done=event.done)
            notes += [] if left is None else [in_words(left)]
        if notes:
            bar.set_postfix_str(", ".join(notes), refresh=False)
        bar.update(event.step - bar.n)
        if event.done:
            self._bars.pop(event.stage).close()

    def _open(self, event: ProgressEvent) -> Any:
        from tqdm import tqdm

        several = self._remaining is not None and self._remaining.pictures > 1
        name = f"picture {self._remaining.current}/{self._remaining.pictures} · " if self._remaining and several else ""
        bar = self._bars[event.stage] = tqdm(
            desc=f"{name}{event.stage} {printable(event.detail)}".rstrip(),
            total=event.total,
            unit=event.unit,
            unit_scale=event.unit in ("B", "byte"),
            file=self._stream,
            disable=self._disable,
            dynamic_ncols=True,
            leave=not several and event.stage != LOAD,
        )
        return bar


@contextmanager
def track(
    progress: Progress, stage: str, *, total: int | None = None, unit: str = "step", detail: str = ""
) -> Iterator[Callable[..., None]]:
    """Report a stage (`detail`: of what); yields `advance(count=1, detail="")`.

    The last event comes with the block's end, or its error.
    """
    started, step, last = time.monotonic(), 0, detail

    def event(*, done: bool = False) -> ProgressEvent:
        seconds = time.monotonic() - started
        return ProgressEvent(stage=stage, step=step, total=total, unit=unit, seconds=seconds, detail=last, done=done)

    def advance(count: int = 1, detail: str = "") -> None:
        nonlocal step, last
        step, last = step + count, detail
        progress(event())

    progress(event())
    try:
        yield advance
    finally:
        progress(event(done=True))
