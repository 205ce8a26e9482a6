"""Files that survive a crash whole: the old content or all of the new."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that appears under its name when it is complete; on errors and Ctrl-C nothing is left behind."""
    with _partial(path, content) as partial:
        partial.replace(path)


def write_new(path: Path, content: bytes) -> None:
    """The same for a file that must not exist yet: raises FileExistsError and replaces none, also in a race."""
    with _partial(path, content) as partial:
        try:
            os.link(partial, path)
            partial.unlink()
        except FileExistsError:
            raise
        except OSError:  # a file system without links: the name is taken first
            path.open("xb").close()
            try:
                partial.replace(path)
            except BaseException:
                path.unlink(missing_ok=True)
                raise


@contextmanager
def _partial(path: Path, content: bytes) -> Iterator[Path]:
    """The content on the disk beside `path` under a name of its own, which is gone after the block."""
    # The name is short whatever `path` is: the longest allowed name would have no room for a suffix.
    partial = path.with_name(f".{secrets.token_hex(6)}.part")
    try:
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield partial
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
