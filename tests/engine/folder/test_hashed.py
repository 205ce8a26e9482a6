"""A large file that was hashed once is not hashed again by the next process, unless anything about it has changed."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pocketxl.engine.errors import IntegrityError
from pocketxl.engine.folder import files, hashed
from pocketxl.engine.folder.files import FileEntry, entry_of, hash_file, matched_path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no time of the last change of any kind")
NextProcess = Callable[[], None]


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileEntry:
    """A file of a folder, old enough to be noted."""
    monkeypatch.setenv("POCKETXL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hashed, "LEAST_BYTES", 8)
    monkeypatch.setattr(hashed, "SETTLED", -1)
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "weights").write_bytes(b"a" * 100)
    return entry_of(tmp_path / "engine", "weights")


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are hashed from now on."""
    found: list[Path] = []
    compute = files._sha256

    def counted(path: Path, progress: files.OnBytes | None) -> str:
        found.append(path)
        return compute(path, progress)

    monkeypatch.setattr(files, "_sha256", counted)
    return found


@pytest.fixture
def next_process(monkeypatch: pytest.MonkeyPatch) -> NextProcess:
    """Forget what this one knows."""
    return lambda: monkeypatch.setattr(files, "_hashed", {})


def test_the_next_process_believes_it(
    entry: FileEntry, hashes: list[Path], next_process: NextProcess, tmp_path: Path
) -> None:
    folder = tmp_path / "engine"
    for _ in range(3):
        next_process()
        matched_path(folder, entry)
    assert len(hashes) == 1
    hash_file(folder, entry)
    assert len(hashes) == 2, "who asks for a hash gets one"


@pytest.mark.parametrize("change", ["content", "content and time", "exchanged", "moved", "another digest"])
def test_nothing_that_has_changed_is_believed(
    change: str, entry: FileEntry, hashes: list[Path], next_process: NextProcess, tmp_path: Path
) -> None:
    folder, path = tmp_path / "engine", tmp_path / "engine" / "weights"
    next_process()
    matched_path(folder, entry)
    next_process()
    before = path.stat()
    if change.startswith("content"):
        path.write_bytes(b"b" * 100)
        if change == "content and time":
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif change == "exchanged":
        (folder / "other").write_bytes(b"b" * 100)
        os.utime(folder / "other", ns=(before.st_atime_ns, before.st_mtime_ns))
        (folder / "other").replace(path)
    elif change == "moved":
        folder = folder.rename(tmp_path / "elsewhere")
        matched_path(folder, entry)
        assert len(hashes) == 2
        return
    else:
        entry = FileEntry(path=entry.path, sha256="0" * 64, size=entry.size)
    with pytest.raises(IntegrityError, match="was altered"):
        matched_path(folder, entry)
    with pytest.raises(IntegrityError, match="was altered"):
        matched_path(folder, entry)


@pytest.mark.parametrize("why", ["small", "just written", "asked to", "no cache"])
def test_what_is_hashed_every_time(
    why: str, entry: FileEntry, hashes: list[Path], next_process: NextProcess, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if why == "small":
        monkeypatch.setattr(hashed, "LEAST_BYTES", 101)
    elif why == "just written":
        monkeypatch.setattr(hashed, "SETTLED", 60 * 10**9)
    elif why == "asked to":
        monkeypatch.setenv(hashed.ALWAYS, "1")
    else:
        (tmp_path / "cache").write_text("a file where the folder should be")
    for _ in range(2):
        next_process()
        matched_path(tmp_path / "engine", entry)
    assert len(hashes) == 2


def test_notes_do_not_grow_without_end(
    entry: FileEntry, hashes: list[Path], next_process: NextProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashed, "MOST_NOTES", 3)
    path = tmp_path / "engine" / "weights"
    for second in range(20):
        os.utime(path, (second, second))
        next_process()
        matched_path(tmp_path / "engine", entry)
    assert len(list((tmp_path / "cache" / "hashed").iterdir())) <= 3
    next_process()
    matched_path(tmp_path / "engine", entry)
    assert len(hashes) == 20, "the newest stay"
