"""Pages of mapped files, given back to the system."""

import ctypes
import mmap
import time
from pathlib import Path

import pytest

from pocketxl.engine.runners import mapped
from pocketxl.engine.runners.mapped import GIVES_BACK, forget_pages, without_pages

PAGES = 2000


def resident(path: Path) -> int:
    """KiB of the file that count as this process's memory."""
    found, here = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0] and not line.split()[0].endswith(":"):
            here = line.endswith(str(path))
        elif here and line.startswith("Rss:"):
            found += int(line.split()[1])
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights with spaces.data"
    path.write_bytes(b"\x07" * PAGES * mmap.PAGESIZE)
    return path


def read(view: mmap.mmap) -> int:
    return sum(view[page * mmap.PAGESIZE] for page in range(PAGES))


@pytest.mark.skipif(not GIVES_BACK, reason="only Linux takes pages back when it is told to")
def test_they_are_given_back_and_read_anew(file: Path) -> None:
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as view:
        whole = PAGES * mmap.PAGESIZE >> 10
        assert read(view) == 7 * PAGES
        assert resident(file) == whole
        forget_pages(file.parent / "other.data")
        assert resident(file) == whole
        forget_pages(file)
        assert resident(file) == 0
        assert read(view) == 7 * PAGES


@pytest.mark.skipif(not GIVES_BACK, reason="only Linux takes pages back when it is told to")
def test_again_and_again_until_the_end(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "_EVERY", 0.01)
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as view:
        with without_pages(file):
            for _ in range(3):
                read(view)
                until = time.monotonic() + 60
                while resident(file) and time.monotonic() < until:
                    time.sleep(0.01)
                assert resident(file) == 0
            read(view)
        assert resident(file) == 0


@pytest.mark.skipif(not GIVES_BACK, reason="only Linux takes pages back when it is told to")
def test_what_is_written_to_is_left_alone(file: Path) -> None:
    """Of a private mapping the changes would be lost."""
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY) as view:
        view[0] = 9
        forget_pages(file)
        assert view[0] == 9


@pytest.mark.skipif(not GIVES_BACK, reason="only Linux takes pages back when it is told to")
def test_where_the_process_may_not_look_nothing_fails(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "MAPS", str(file.parent / "hidden"))
    with without_pages(file):
        pass


def test_elsewhere_nothing_is_asked(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "GIVES_BACK", False)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("there is no such library"))
    with without_pages(file):
        pass
