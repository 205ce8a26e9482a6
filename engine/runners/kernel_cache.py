"""Kernels that a library has compiled on this GPU, kept between runs.

The file lies beside the engine's own, named by what it is good for, or in the user's cache where the engine's folder
cannot be written. It is code and stands in no manifest, so it is believed only if this user has written it: the digest
of every file written is noted in the user's cache. A damaged file, or one that came with a copied folder, has no such
note; it is passed over and written anew.
"""

from hashlib import sha256
from pathlib import Path

from ..folder.cache import cache_folder
from ..folder.durable import write_durably
from ..folder.files import KERNELS_SUFFIX


class KernelCache:
    """The compiled kernels of one engine file for one GPU, driver and library (`good_for`)."""

    def __init__(self, engine: Path, good_for: str) -> None:
        key = sha256(good_for.encode()).hexdigest()[:16]
        self._places = (
            engine.with_name(f"{engine.name}.{key}{KERNELS_SUFFIX}"),
            _notes() / f"{key}{KERNELS_SUFFIX}",
        )
        self._digest = ""

    def read(self) -> bytes | None:
        """What was written last, if it can be believed."""
        for path in self._places:
            try:
                content = path.read_bytes()
                digest = sha256(content).hexdigest()
                if (_notes() / digest).is_file():
                    self._digest = digest
                    return content
            except OSError:
                continue
        return None

    def write(self, content: bytes) -> None:
        """Keep `content`; without a place for it nothing happens, and kernels are compiled again next time."""
        digest = sha256(content).hexdigest()
        if digest == self._digest:
            return
        try:
            write_durably(_notes() / digest, b"")
        except OSError:
            return  # then nobody would believe it
        for path in self._places:
            try:
                write_durably(path, content)
            except OSError:
                continue
            _forget(self._digest)
            self._digest = digest
            return
        _forget(digest)


def _notes() -> Path:
    return cache_folder() / "kernels"


def _forget(digest: str) -> None:
    if digest:
        try:
            (_notes() / digest).unlink(missing_ok=True)
        except OSError:
            return  # an empty file is left
