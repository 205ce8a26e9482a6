"""How many calls may use one engine at once, and who is inside."""

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from .errors import RequestError


class Slots:
    """Admits `count` calls at a time; further ones wait their turn."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = threading.BoundedSemaphore(count)
        self._closing = threading.Lock()
        self._inside: set[int] = set()
        self._process = os.getpid()

    @property
    def inherited(self) -> bool:
        """True in a process that was forked from the one that made this: its calls are not running here."""
        return os.getpid() != self._process

    @contextmanager
    def one(self) -> Iterator[None]:
        """Wait for a slot, and have it during the block.

        Raises `RequestError` for a call out of a running one (out of its callback), which could wait for itself.
        """
        thread = threading.get_ident()
        self._refuse_nested(thread)
        with self._free:
            self._inside.add(thread)
            try:
                yield
            finally:
                self._inside.discard(thread)

    @contextmanager
    def all(self) -> Iterator[None]:
        """Wait until no call runs, and let none in during the block."""
        self._refuse_nested(threading.get_ident())
        with self._closing, ExitStack() as stack:
            for _ in range(self.count):
                stack.enter_context(self._free)
            yield

    def _refuse_nested(self, thread: int) -> None:
        if thread in self._inside:
            raise RequestError("the pipeline is busy with the call that this callback belongs to; return from it first")
