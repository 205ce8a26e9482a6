"""Waiting for a component in such a way that Ctrl-C, a cancel token or a deadline can end it in the middle.

Python handles signals in its main thread, between its own instructions: as long as that thread is inside a back end,
Ctrl-C waits, at full size for half a minute. So the back end gets a thread of its own where somebody may want to end
it, and the caller's waits. It costs a third of a millisecond a call.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from ..ending import Ended, Ending, current_ending

T = TypeVar("T")
LOOK_EVERY = 0.05
"""Seconds between two looks at the token."""


def run_interruptibly(work: Callable[[], T], stop: Callable[[], None]) -> T:
    """What `work()` returns or raises. `stop()` makes a running `work` end soon, with an error.

    Raises `Ended` if the call's ending came due meanwhile and `work` did not finish.
    """
    ending = current_ending()
    if ending is None and threading.current_thread() is not threading.main_thread():
        return work()
    future: Future[T] = Future()
    settled = threading.Event()
    worker = threading.Thread(target=_settle, args=(future, settled, work), name="pocketxl", daemon=True)
    try:
        worker.start()
        due = _wait(settled, ending)
    except BaseException:
        stop()
        while worker.is_alive() and not settled.wait(LOOK_EVERY):
            pass
        raise
    if due:
        stop()
        settled.wait()
        if future.exception() is not None:
            raise Ended from future.exception()
    return future.result()


def _wait(settled: threading.Event, ending: Ending | None) -> bool:
    """Wait for the work; True if the call is to end before."""
    while not settled.wait(LOOK_EVERY):
        if ending is not None and ending.due():
            return True
    return False


def _settle(future: "Future[T]", settled: threading.Event, work: Callable[[], T]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:  # noqa: BLE001 — it is raised again in the waiting thread
        future.set_exception(error)
    settled.set()
