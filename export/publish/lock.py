"""One builder for a destination at a time: a lock that the operating system drops when its holder dies."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ...engine.errors import StorageError

if sys.platform == "win32":
    import msvcrt

    def _take(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _take(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file `path` for the block; the folder is made, and the file removed at the end if nobody did.

    Never waits: raises `StorageError` that names the holder if another living process has it. A killed holder leaves
    the file but not the lock, so that its work is taken over without a question.
    """
    handle = _open_and_take(path, what)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(handle)
        with suppress(OSError):
            path.parent.rmdir()


def _open_and_take(path: Path, what: str) -> int:
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:
            continue  # the last holder removed the folder between the two calls
        try:
            _take(handle)
        except OSError as error:
            holder = os.read(handle, 64).decode(errors="replace") or "unknown"
            os.close(handle)
            raise StorageError(
                f"{what} is being built by another process (pid {holder}); wait for it, or choose another folder"
            ) from error
        # The last holder may have unlinked the file that we opened: only the one under the name counts.
        if path.exists() and os.fstat(handle).st_ino == path.stat().st_ino:
            os.ftruncate(handle, 0)
            os.write(handle, str(os.getpid()).encode())
            return handle
        os.close(handle)
