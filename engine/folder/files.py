"""Files of an engine folder: recorded by path, sha256 and size, and found inside the folder only."""

import hashlib
import os
import reprlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import IntegrityError, StorageError
from .hashed import note, noted

OnBytes = Callable[[int], None]
"""Called with the number of bytes that were read since the last call."""
KERNELS_SUFFIX = ".kernels"
"""Of what a runtime has compiled for the GPU at hand, beside the engine's own files; see `runners.kernel_cache`."""
WORDS_FILE = "words.bin"
"""A table that a text encoder's host looks rows up in: of all files of a component the one that is never loaded."""
_CHUNK = 4 << 20
_SETTLED = 100_000_000
"""Nanoseconds: what changes a file later than that after it was last written gives it another time."""
# (path, size, mtime_ns, inode) → sha256 of the files that this process has hashed.
_hashed: dict[tuple[str, int, int, int], str] = {}


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """A file: its path inside the engine folder with forward slashes, sha256 in hex, and size in bytes."""

    path: str
    sha256: str
    size: int

    @property
    def name(self) -> str:
        """Its name in its folder."""
        return PurePosixPath(self.path).name


def entry_of(folder: Path, path: str) -> FileEntry:
    """Hash `folder`/`path`, unless this process has hashed it and nobody has written to it since."""
    file = lexical_path(folder, path)
    status = file.stat()
    identity = _identity(file, status)
    digest = _hashed.get(identity) or _sha256(file, None)
    if time.time_ns() - status.st_mtime_ns > _SETTLED:
        _hashed[identity] = digest
    return FileEntry(path=path, sha256=digest, size=status.st_size)


def lexical_path(folder: Path, path: str) -> Path:
    """`folder`/`path`, refused if it is absolute, climbs out, or is spelled in more than one way."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or str(pure) != path or path == "." or set("\\:\0") & set(path):
        raise IntegrityError(
            f"file path {reprlib.repr(path)} is refused: it must be relative, with '/' and without '..'"
        )
    return folder / path


def hash_file(folder: Path, entry: FileEntry, progress: OnBytes | None = None) -> Path:
    """Hold one file to its entry: containment, size, then hash. Returns its path, or raises `IntegrityError`."""
    path = _contained(folder, entry)
    try:
        status = path.stat()
        if status.st_size != entry.size:
            raise IntegrityError(f"{path} has {status.st_size} bytes, engine.json says {entry.size}")
        digest = _sha256(path, progress)
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    if digest != entry.sha256:
        raise IntegrityError(f"{path} was altered: its sha256 is {digest[:12]}…, engine.json says {entry.sha256[:12]}…")
    _hashed[_identity(path, status)] = digest
    note(path, status, digest)
    return path


def matched_path(folder: Path, entry: FileEntry) -> Path:
    """Like `hash_file`, but a file that has not changed since it was hashed is not hashed again.

    By this process, or by another one of this user's (see `hashed`).
    """
    path = _contained(folder, entry)
    status = path.stat()
    if _hashed.get(_identity(path, status)) == entry.sha256:
        return path
    if status.st_size == entry.size and noted(path, status, entry.sha256):
        return path
    return hash_file(folder, entry)


def is_litter(name: str) -> bool:
    """True for the names of files that operating systems and runtimes strew over folders; nobody misses them."""
    return name in (".DS_Store", "Thumbs.db", "desktop.ini") or name.startswith("._") or name.endswith(KERNELS_SUFFIX)


def _contained(folder: Path, entry: FileEntry) -> Path:
    path = lexical_path(folder, entry.path)
    try:
        root, real = folder.resolve(strict=True), path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise IntegrityError(f"{path} is missing") from error
    # In a hub cache `snapshots/<revision>/` holds links into the `blobs/` beside `snapshots/`.
    blobs = root.parent.parent / "blobs" if root.parent.name == "snapshots" else root
    if not real.is_file() or not (real.is_relative_to(root) or real.is_relative_to(blobs)):
        raise IntegrityError(f"{path} is refused: it must be a file inside the engine folder, not a link out of it")
    return path


def _identity(path: Path, status: os.stat_result) -> tuple[str, int, int, int]:
    return (str(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ino)


def _sha256(path: Path, progress: OnBytes | None) -> str:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_CHUNK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            if progress is not None:
                progress(count)
    return digest.hexdigest()
