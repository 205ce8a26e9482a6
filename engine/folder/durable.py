"""Files that survive a crash whole: the old content or all of the new."""

import os
import secrets
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that appears under its name when it is complete; on errors and Ctrl-C nothing is left behind."""
    # The name is short whatever `path` is: the longest allowed name would have no room for a suffix.
    partial = path.with_name(f".{secrets.token_hex(6)}.part")
    try:
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_durably(path: Path, content: bytes) -> None:
    """Write a file, and its folder if need be: after a crash it has either its old content or all of the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)
    sync(path.parent)


def sync(path: Path) -> None:
    """Flush one file or folder to the disk."""
    if os.name == "nt":
        return  # it flushes through writable handles only
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
