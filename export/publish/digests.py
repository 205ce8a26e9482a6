"""Content digests of checkpoints, remembered for the user: a second build of a 7 GB checkpoint reads none of it."""

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from ...engine.folder.cache import cache_folder
from ...engine.folder.durable import write_durably
from .keys import digest_of

_CACHE_ENTRIES = 512
# A file written this recently could be written again within one tick of its time stamp, so its digest is not kept.
_SETTLED_SECONDS = 2.0


def cached_digest(files: Iterable[Path], name: str, compute: Callable[[], str], cache: Path | None = None) -> str:
    """`compute()`, the content digest of component `name` in `files`, or what it was when they were last seen.

    Files are recognised by resolved path, size, time stamp and inode, so that a second build of a 7 GB checkpoint reads
    none of it. The cache is one small JSON file for the user (`cache`: another one); damage or a read-only home only
    cost the time to compute again.
    """
    path = cache or cache_folder() / "digests.json"
    paths = sorted(file.resolve() for file in files)
    known = known_digest(paths, name, path)
    if known is not None:
        return known
    identity = _identity(paths, name)
    newest = max((file.stat().st_mtime for file in paths), default=0.0)
    digest = compute()
    if _identity(paths, name) == identity and time.time() - newest > _SETTLED_SECONDS:
        # Read again: another build may have added to it meanwhile.
        entries = {**_read_cache(path), identity: digest}
        kept = dict(list(entries.items())[-_CACHE_ENTRIES:])
        try:
            write_durably(path, json.dumps(kept, indent=0).encode())
        except OSError:
            return digest  # no cache then
    return digest


def known_digest(files: Iterable[Path], name: str, cache: Path | None = None) -> str | None:
    """What `cached_digest` would say without computing, or None where it would compute."""
    path = cache or cache_folder() / "digests.json"
    return _read_cache(path).get(_identity(sorted(file.resolve() for file in files), name))


def _identity(paths: list[Path], name: str) -> str:
    stats = [(str(p), s.st_size, s.st_mtime_ns, s.st_ino) for p in paths for s in (p.stat(),)]
    return digest_of([name, stats])


def _read_cache(path: Path) -> dict[str, str]:
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(data, dict):
        return {}
    hexadecimal = set("0123456789abcdef")
    return {k: v for k, v in data.items() if isinstance(v, str) and len(v) == 64 and set(v) <= hexadecimal}
