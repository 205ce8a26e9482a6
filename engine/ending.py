"""Ending a call before its last step: a token that is set, or a deadline that passes.

The pipeline makes an `Ending` for each call and puts it into effect for the block that does the work; back ends that
can stop in the middle of a component look it up, the others finish theirs.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from .request.limits import positive

_CURRENT: ContextVar["Ending | None"] = ContextVar("pocketxl ending", default=None)


class Ended(Exception):  # noqa: N818 — a signal, not an error
    """A component was stopped because its call ended; never leaves the pipeline."""


class Ending:
    """When a call is to end: as soon as one of `tokens` is set, or `deadline` seconds after this was made."""

    def __init__(self, *tokens: threading.Event, deadline: float | None = None) -> None:
        self._tokens = tokens
        self._at = None if deadline is None else time.monotonic() + deadline

    def due(self) -> bool:
        """True once it is time."""
        return any(token.is_set() for token in self._tokens) or (self._at is not None and time.monotonic() >= self._at)

    @contextmanager
    def in_effect(self) -> Iterator[None]:
        """Let the components that run in the block, in this thread, know of it."""
        before = _CURRENT.set(self)
        try:
            yield
        finally:
            _CURRENT.reset(before)


class Endings:
    """Those of the calls that run, so that all of them can be ended from outside."""

    def __init__(self) -> None:
        self._tokens: set[threading.Event] = set()

    @contextmanager
    def one(self, cancel: threading.Event | None, deadline: float | None) -> Iterator[Ending]:
        """The ending of one call, or of one stream of calls, for the block."""
        own = threading.Event()
        self._tokens.add(own)
        try:
            yield Ending(own, *([] if cancel is None else [cancel]), deadline=deadline)
        finally:
            self._tokens.discard(own)

    def end_all(self) -> None:
        """It is time for all of them."""
        for token in tuple(self._tokens):
            token.set()


def seconds_of(deadline: object) -> float | None:
    """A deadline as a caller gives it; raises `RequestError` for one that is no number above 0."""
    return None if deadline is None else positive("deadline", deadline)


def current_ending() -> Ending | None:
    """The running call's, if it has one."""
    return _CURRENT.get()
