"""Large files that this user's processes have hashed, so that the next one need not: some seconds of every start.

For each a note, an empty file in the user's cache, is named by all that would be another one after a change: path,
size, device, inode, and the times of the last writing and of the last change of any kind. Nobody can set that one back;
POSIX alone has it, and elsewhere files are hashed at every start. A file that somebody exchanges, edits or copies anew
has no note. What a disk changes by itself is found by `pocketxl verify`, which always hashes.
"""

import os
import sys
import time
from hashlib import sha256
from pathlib import Path

from .cache import cache_folder

LEAST_BYTES = 16 << 20
"""Smaller files are hashed faster than it matters."""
MOST_NOTES = 2048
SETTLED = 2_000_000_000
"""Nanoseconds: a file written this recently could be written again within one tick of its time stamp."""
ALWAYS = "POCKETXL_ALWAYS_HASH"
"""Environment variable: if it is set and not empty, every process hashes."""


def noted(path: Path, status: os.stat_result, digest: str) -> bool:
    """Whether the file, as it is now, is known to have that sha256."""
    try:
        return _noting(status) and _note(path, status, digest).is_file()
    except OSError:
        return False


def note(path: Path, before: os.stat_result, digest: str) -> None:
    """Note what was hashed; `before`: what the file was when that began. Without a cache nothing happens."""
    try:
        settled = time.time_ns() - max(before.st_mtime_ns, before.st_ctime_ns) > SETTLED
        if not (_noting(before) and settled and _facts(path, path.stat()) == _facts(path, before)):
            return
        one = _note(path, before, digest)
        one.parent.mkdir(parents=True, exist_ok=True)
        one.touch()
        _forget_oldest(one.parent)
    except OSError:
        return


def _noting(status: os.stat_result) -> bool:
    return sys.platform != "win32" and status.st_size >= LEAST_BYTES and not os.environ.get(ALWAYS)


def _facts(path: Path, status: os.stat_result) -> tuple[object, ...]:
    return (
        str(path.resolve()), status.st_size, status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns
    )  # fmt: skip


def _note(path: Path, status: os.stat_result, digest: str) -> Path:
    name = sha256(repr((*_facts(path, status), digest)).encode()).hexdigest()
    return cache_folder() / "hashed" / name


def _forget_oldest(folder: Path) -> None:
    notes = list(folder.iterdir())
    if len(notes) > MOST_NOTES:
        for old in sorted(notes, key=lambda one: one.stat().st_mtime_ns)[: len(notes) // 2]:
            old.unlink(missing_ok=True)
