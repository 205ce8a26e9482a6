"""A destination and its hidden sibling: how the finished folder takes its place in one step, whatever happens."""

import ctypes
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ...engine.errors import StorageError
from ...engine.folder.manifest import FILE_NAME
from .lock import locked

STATE_FILE = "state.json"
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


def real(destination: Path) -> Path:
    """The folder behind links; `StorageError` for a root, which has no name to be exchanged."""
    resolved = destination.resolve()
    if not resolved.name:
        raise StorageError(f"{destination} cannot hold an engine; choose a folder inside it")
    return resolved


def work_folder(destination: Path) -> Path:
    """The hidden sibling in which an engine for `destination` grows."""
    return destination.with_name(f".{destination.name}.building")


def tidy(destination: Path, action: Callable[[Path], None]) -> None:
    """Do `action(destination)` if there is a work folder that no living builder uses, and we may write there."""
    if work_folder(destination).exists():
        with suppress(StorageError, OSError), locked(work_folder(destination) / "lock", str(destination)):
            action(destination)


def recover(destination: Path) -> None:
    """Put the old engine back if a build was killed between its two renames."""
    replaced = work_folder(destination) / "replaced"
    if replaced.is_dir() and not destination.exists():
        replaced.rename(destination)


def swap(new: Path, destination: Path, aside: Path) -> None:
    """Put `new` in place of the destination; what was there is then at `new`, at `aside`, or gone if it was empty."""
    if destination.is_dir() and not any(destination.iterdir()):
        destination.rmdir()
    if not destination.exists():
        new.rename(destination)
    elif not exchange(new, destination):
        shutil.rmtree(aside, ignore_errors=True)
        destination.rename(aside)
        new.rename(destination)


def exchange(first: Path, second: Path) -> bool:
    """Exchange two folders in one atomic step (Linux, most file systems); False where that is not offered."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    done: int = renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE)
    return done == 0


def clear(destination: Path) -> None:
    """Remove the work, but not the lock, which is its holder's to remove."""
    work = work_folder(destination)
    (work / STATE_FILE).unlink(missing_ok=True)  # first: without it the rest counts for nothing
    for path in list(work.iterdir()):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != "lock":
            path.unlink()


def clear_published(destination: Path) -> None:
    """Remove what a build left that was killed behind its last step; one that is not finished is left to go on."""
    work = work_folder(destination)
    unfinished = (work / STATE_FILE).exists() and (work / "engine").is_dir()
    if not unfinished or (work / "engine" / FILE_NAME).exists() or (work / "replaced").exists():
        clear(destination)
