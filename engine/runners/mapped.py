"""Pages of a file that a library has mapped into this process, and that nobody will read again.

They count as this process's memory until the system needs it for something else. Linux gives them back when it is
asked to; elsewhere they stay.
"""

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

GIVES_BACK = sys.platform == "linux"
"""Whether the system takes them when it is told to."""
_EVERY = 0.2
"""Seconds, in which a compiler reads some hundred megabytes."""
_DONTNEED = 4
MAPS = "/proc/self/maps"


@contextmanager
def without_pages(path: Path) -> Iterator[None]:
    """While the block runs, and at its end, give back the pages of a file that something in it reads once.

    They are read anew from the system's cache where they are needed after all.
    """
    if not GIVES_BACK:
        yield
        return
    done = threading.Event()

    def give_back() -> None:
        while not done.wait(_EVERY):
            forget_pages(path)

    thread = threading.Thread(target=give_back, name="pocketxl-pages", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        forget_pages(path)


def forget_pages(path: Path) -> None:
    """Have the system take back what is mapped of a file, which must be mapped to be read only. On Linux alone.

    Where the process may not know what it has mapped, nothing is done.
    """
    name = str(path.resolve())
    madvise = ctypes.CDLL(None).madvise
    for start, length in _mappings(name):
        madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), _DONTNEED)


def _mappings(name: str) -> Iterator[tuple[int, int]]:
    """Where the file is mapped, read only: (address, bytes)."""
    try:
        text = Path(MAPS).read_text(errors="surrogateescape")
    except OSError:
        return
    for line in text.splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5] == name and "w" not in fields[1]:
            start, end = (int(address, 16) for address in fields[0].split("-"))
            yield start, end - start
