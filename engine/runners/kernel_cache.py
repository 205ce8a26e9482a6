"""What a library has compiled on this machine, kept between runs: kernels for a GPU, models for sizes of pictures.

The file lies beside the engine's own, named by what it is good for, or in the user's cache where the engine's folder
cannot be written. It is code and stands in no manifest, so it is believed only if this user has written it: the digest
of every file written is noted in the user's cache. A damaged file, or one that came with a copied folder, has no such
note; it is passed over and written anew.
"""

import os
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from ..folder.cache import cache_folder
from ..folder.durable import write_durably
from ..folder.files import KERNELS_SUFFIX

MOST = 4
"""Files that are kept of one engine file, for other cards, drivers or sizes: those that were used last."""


class KernelCache:
    """What was compiled of one engine file for one machine, library and purpose (`good_for`)."""

    def __init__(self, engine: Path, good_for: str) -> None:
        key = _digest(good_for.encode())[:16]
        self._stems = (engine.parent, f"{engine.name}."), (_notes(), f"{_digest(os.fsencode(engine.absolute()))[:16]}.")
        self._places = [folder / f"{stem}{key}{KERNELS_SUFFIX}" for folder, stem in self._stems]
        self._digest = ""

    def read(self) -> bytes | None:
        """What was written last, if it can be believed."""
        for path in self._places:
            try:
                content = path.read_bytes()
                digest = _digest(content)
                if (_notes() / digest).is_file():
                    self._digest = digest
                    with suppress(OSError):
                        os.utime(path)
                    return content
            except OSError:
                continue
        return None

    def write(self, content: bytes) -> None:
        """Keep `content`; without a place for it nothing happens, and it is compiled again next time."""
        digest = _digest(content)
        if digest == self._digest:
            return
        try:
            write_durably(_notes() / digest, b"")
        except OSError:
            return  # then nobody would believe it
        for path, (folder, stem) in zip(self._places, self._stems, strict=True):
            try:
                write_durably(path, content)
            except OSError:
                continue
            _forget(self._digest)
            self._digest = digest
            with suppress(OSError):
                _leave(MOST, folder, stem)
            return
        _forget(digest)


def _digest(content: bytes) -> str:
    return sha256(content).hexdigest()


def _notes() -> Path:
    return cache_folder() / "kernels"


def _forget(digest: str) -> None:
    if digest:
        with suppress(OSError):  # an empty file is left
            (_notes() / digest).unlink(missing_ok=True)


def _leave(most: int, folder: Path, stem: str) -> None:
    """Of the files whose names begin so, leave the newest."""
    files = [path for path in folder.iterdir() if path.name.startswith(stem) and path.name.endswith(KERNELS_SUFFIX)]
    for path in sorted(files, key=lambda path: path.stat().st_mtime_ns, reverse=True)[most:]:
        _forget(_digest(path.read_bytes()))
        path.unlink()
