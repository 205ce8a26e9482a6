"""A component in the form that a library wants it in, kept between runs: a graph, and its weights laid out for kernels.

Both lie in a folder beside the engine's own file, named by what they are good for, or in the user's cache where the
engine's folder cannot be written. As with `kernel_cache`, they are code and stand in no manifest, so they are believed
only if this user has written them, for this purpose: a third file holds their digests, and the digest of that one is
noted in the user's cache. What was damaged, exchanged, or came with a folder from elsewhere has no such note, and is
passed over.
"""

import errno
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from ..errors import IntegrityError, PocketXLError, StorageError
from ..folder.cache import cache_folder
from ..folder.durable import sync, write_durably
from ..folder.files import KERNELS_SUFFIX, FileEntry, entry_of, hash_file, matched_path

GRAPH = f"graph{KERNELS_SUFFIX}"
WEIGHTS = f"weights{KERNELS_SUFFIX}"
_DIGESTS = f"digests{KERNELS_SUFFIX}"
_FOLDER_SUFFIX, _PARTIAL_SUFFIX = ".prepared", ".prepared-part"
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT}
# A library that writes files itself tells of a full disk in its own words, if at all; so little space is the telltale.
_NOTHING_LEFT = 1 << 20
_MOST_BYTES = 1 << 12
ABANDONED = 3600
"""Seconds after which nobody is still writing; a full-size U-Net takes twenty."""


class PreparedFiles:
    """What was made of one engine file for one machine, library and setting (`good_for`)."""

    def __init__(self, model: Path, good_for: str) -> None:
        self._name = f"{_digest(good_for.encode())[:32]}{_FOLDER_SUFFIX}"
        self._stems = _stems(model)

    def find(self, *, anew: bool = False) -> Path | None:
        """The graph, if it and its weights can be believed.

        Large files are hashed once (`folder.hashed`), unless they are to be hashed `anew`.
        """
        for folder, stem in self._stems:
            path = folder / f"{stem}{self._name}"
            try:
                content = _digests_in(path)
                if _note(path, content).is_file():
                    return _matched(path, content, hash_file if anew else matched_path)[0]
            except (OSError, PocketXLError):
                continue
        return None

    def write(self, make: Callable[[Path], None], bytes_needed: int) -> int:
        """Have `make` write `GRAPH` and `WEIGHTS` into a folder, and keep them; bytes that were written.

        They appear whole or not at all, in place of what was made of the file before. Raises `StorageError` for a disk
        without so much room and where nothing can be written, and what `make` raises.
        """
        for folder, stem in self._stems:
            partial = folder / f".{stem}{secrets.token_hex(6)}{_PARTIAL_SUFFIX}"
            try:
                if folder != self._stems[0][0]:
                    folder.mkdir(parents=True, exist_ok=True)
                partial.mkdir()
            except OSError as error:
                if error.errno in _REFUSED:
                    continue
                raise _full(folder, bytes_needed, str(error.strerror or error)) from error
            try:
                return self._write(folder, stem, partial, make, bytes_needed)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        places = " nor in ".join(str(folder) for folder, _ in self._stems)
        raise StorageError(
            f"nothing can be written in {places}; make one of them writable, or set POCKETXL_CACHE to a folder that is"
        )

    def _write(self, folder: Path, stem: str, partial: Path, make: Callable[[Path], None], bytes_needed: int) -> int:
        for old in _abandoned(folder, stem):
            with suppress(StorageError):  # somebody else's, perhaps
                _remove(old)
        if _free(folder) < bytes_needed:
            raise _full(folder, bytes_needed)
        try:
            make(partial)
            entries = [entry_of(partial, name) for name in (GRAPH, WEIGHTS)]
            content = json.dumps({entry.path: [entry.sha256, entry.size] for entry in entries}).encode()
            (partial / _DIGESTS).write_bytes(content)
            for name in (GRAPH, WEIGHTS, _DIGESTS):
                sync(partial / name)
        except Exception as error:
            number = error.errno if isinstance(error, OSError) else None
            if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or _free(folder) < _NOTHING_LEFT:
                raise _full(folder, bytes_needed, str(getattr(error, "strerror", None) or error)) from error
            if not partial.is_dir():
                raise _changed(folder) from error
            raise
        if self.find(anew=True) is None:  # no other process was first; what it made is as good
            for old in _made(folder, stem):
                _remove(old)
            path = folder / f"{stem}{self._name}"
            _believe(path, content)
            with suppress(OSError):
                partial.rename(path)
                sync(folder)
        if (found := self.find()) is None:
            raise _changed(folder)
        return _size_of(found.parent)


def remove_prepared(model: Path) -> int:
    """Delete all that was ever made of an engine file, also what was left half-written; bytes that were freed."""
    return sum(_remove(path) for folder, stem in _stems(model) for path in _made(folder, stem, partial=True))


def _stems(model: Path) -> Sequence[tuple[Path, str]]:
    """The folders where forms of a file lie, and how their names begin."""
    return (model.parent, f"{model.name}."), (_notes(), f"{_digest(os.fsencode(model.absolute()))[:16]}.")


def _made(folder: Path, stem: str, *, partial: bool = False) -> Iterator[Path]:
    with suppress(OSError):
        for path in list(folder.iterdir()):
            whole = path.name.startswith(stem) and path.name.endswith(_FOLDER_SUFFIX)
            if whole or (partial and path.name.startswith(f".{stem}") and path.name.endswith(_PARTIAL_SUFFIX)):
                yield path


def _abandoned(folder: Path, stem: str) -> Iterator[Path]:
    """What processes that were killed have left half-written; those that live have written to theirs lately."""
    for path in _made(folder, stem, partial=True):
        with suppress(OSError):
            times = [one.stat().st_mtime for one in (path, *path.iterdir())]
            if path.name.endswith(_PARTIAL_SUFFIX) and time.time() - max(times) > ABANDONED:
                yield path


def _size_of(folder: Path) -> int:
    """Bytes of its files; another process may be deleting them."""
    size = 0
    with suppress(OSError):
        for file in folder.iterdir():
            size += file.stat().st_size
    return size


def _remove(path: Path) -> int:
    """Delete one form; its name goes first, so that nobody finds half of it. Links are left alone."""
    if path.is_symlink() or not path.is_dir():
        return 0
    size = _size_of(path)
    gone = path.with_name(f".{path.name.lstrip('.')}.{secrets.token_hex(6)}{_PARTIAL_SUFFIX}")
    try:
        with suppress(OSError):  # an empty file is left
            _note(path, _digests_in(path)).unlink(missing_ok=True)
        path.rename(gone)
    except FileNotFoundError:
        return 0  # another process was first
    except OSError as error:
        raise StorageError(f"{path} cannot be removed ({error.strerror}); delete it by hand") from error
    shutil.rmtree(gone, ignore_errors=True)
    return size


def _digests_in(folder: Path) -> bytes:
    with (folder / _DIGESTS).open("rb") as file:
        return file.read(_MOST_BYTES)


def _note(folder: Path, content: bytes) -> Path:
    """What says that this user has written such digests into a folder that is named by what they are good for."""
    return _notes() / _digest(folder.name.split(".")[-2].encode() + content)


def _believe(folder: Path, content: bytes) -> None:
    try:
        write_durably(_note(folder, content), b"")
    except OSError as error:
        raise StorageError(
            f"{_notes()} cannot be written ({error.strerror}), and without a note there nothing that was kept is "
            "believed; make it writable, or set POCKETXL_CACHE to a folder that is"
        ) from error


def _matched(folder: Path, content: bytes, match: Callable[[Path, FileEntry], Path]) -> list[Path]:
    """Graph and weights, held by `match` to what the digests say."""
    try:
        digests = json.loads(content)
        entries = [FileEntry(path=name, sha256=digests[name][0], size=digests[name][1]) for name in (GRAPH, WEIGHTS)]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise IntegrityError(f"{folder / _DIGESTS} is damaged") from error
    return [match(folder, entry) for entry in entries]


def _free(folder: Path) -> int:
    """Bytes on the disk of a folder, which may be yet to be made."""
    there = next(one for one in (folder, *folder.parents) if one.is_dir())
    return shutil.disk_usage(there).free


def _changed(folder: Path) -> StorageError:
    return StorageError(f"what was written in {folder} was removed or changed meanwhile; run it again")


def _full(folder: Path, bytes_needed: int, why: str = "") -> StorageError:
    return StorageError(
        f"{folder} has no room{f' ({why})' if why else ''}: up to {_size(bytes_needed)} are needed, "
        f"{_size(_free(folder))} are free; free some space, or delete what was prepared before with "
        "`pocketxl prepare --remove`"
    )


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _notes() -> Path:
    return cache_folder() / "prepared"


def _digest(content: bytes) -> str:
    return sha256(content).hexdigest()
