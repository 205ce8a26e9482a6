"""Writing that survives a power cut, and disk trouble told as one clear error."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...engine.errors import PocketXLError, StorageError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}
# Libraries that write files themselves report a full disk in their own words; this little space left is the telltale.
_NOTHING_LEFT = 1 << 20


@contextmanager
def storage_errors(folder: Path, bytes_needed: int) -> Iterator[None]:
    """Turn a full disk or a refused write inside the block into `StorageError` with path, bytes needed and the fix."""
    try:
        yield
    except PocketXLError:
        raise
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        where = Path(os.fsdecode(getattr(error, "filename", None) or folder))
        needed = f"the build needs about {_size(bytes_needed)}"
        if number in _FULL or (number is None and free_bytes(folder) < _NOTHING_LEFT):
            raise StorageError(
                f"the disk is full: {where} cannot be written ({_why(error)}); {needed}, "
                f"{_size(free_bytes(folder))} are free; free some space, or choose another folder"
            ) from error
        if number in _REFUSED and where.is_relative_to(folder.parent):
            raise StorageError(
                f"{where} cannot be written ({_why(error)}); choose a folder that you may write to ({needed})"
            ) from error
        raise


def check_space(folder: Path, bytes_needed: int) -> None:
    """Raise `StorageError` before the work starts if `folder` has less than `bytes_needed` free."""
    free = free_bytes(folder)
    if free < bytes_needed:
        raise StorageError(
            f"the build needs about {_size(bytes_needed)} in {folder}, {_size(free)} are free; "
            "free some space, or choose another folder"
        )


def check_writable(folder: Path, option: str) -> None:
    """Raise `StorageError` if no folder can be made at `folder`, or nothing written in it; `option` named it."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        reason = "which cannot be written to" if nearest.is_dir() else f"and {nearest} is no folder"
        raise StorageError(f"{option} is {folder}, {reason}; give a folder that is yours, or one that is not there yet")


def free_bytes(folder: Path) -> int:
    """Free bytes for this user on the disk that `folder` (or its nearest existing parent) is on."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error).splitlines()[0][:200]


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
