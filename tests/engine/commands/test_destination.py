"""Names for pictures: free ones, none replaced, and refused before the work where nothing can be written."""

import errno
import multiprocessing
import os
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from pocketxl.engine.commands.destination import Destination
from pocketxl.engine.errors import RequestError, StorageError

PICTURE = np.zeros((8, 8, 3), np.uint8)
SETTINGS = {"Prompt": "", "Steps": "1", "Seed": "2", "Size": "8x8"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def made(output: str | None, images: int = 1, *, overwrite: bool = False) -> list[str]:
    destination = Destination.of(output, images, overwrite=overwrite)
    destination.try_out(1000)
    return [str(destination.write(PICTURE, SETTINGS, None)) for _ in range(images)]


def names() -> list[str]:
    return sorted(p.relative_to(Path.cwd()).as_posix() for p in Path.cwd().rglob("*") if p.is_file())


def test_a_name() -> None:
    assert made("a.jpg") == ["a.jpg"]
    assert made("b.webp", 3) == ["b-1.webp", "b-2.webp", "b-3.webp"]


def test_without_a_name_pictures_are_numbered_and_none_is_replaced() -> None:
    assert [made(None), made(None), made(None)] == [["out.png"], ["out-2.png"], ["out-3.png"]]
    assert made(None, 2) == ["out-1.png", "out-4.png"]
    before = Path("out-2.png").stat().st_ino
    assert made(None, overwrite=True) == ["out.png"]
    assert Path("out-2.png").stat().st_ino == before


@pytest.mark.parametrize("kind", ["file", "link to nowhere"])
def test_a_name_that_is_taken_is_refused(kind: str) -> None:
    taken = Path("a-2.png")
    if kind == "file":
        taken.write_bytes(b"mine")
    else:
        taken.symlink_to("nowhere")
    with pytest.raises(StorageError, match=r"a-2\.png exists; add --overwrite"):
        Destination.of("a.png", 2, overwrite=False)
    assert made("a.png", 2, overwrite=True) == ["a-1.png", "a-2.png"]
    assert Path("a-2.png").read_bytes().startswith(b"\x89PNG")


def test_a_name_that_is_taken_meanwhile_costs_no_picture() -> None:
    destination = Destination.of("a.png", 1, overwrite=False)
    Path("a.png").write_bytes(b"mine")
    assert str(destination.write(PICTURE, SETTINGS, None)) == "a-2.png"
    assert Path("a.png").read_bytes() == b"mine"


def test_a_folder_gets_numbered_pictures() -> None:
    assert made("pictures/", 2) == ["pictures/00001.png", "pictures/00002.png"]
    Path("pictures/00007.JPG").write_bytes(b"mine")
    Path("pictures/x00100.png").write_bytes(b"mine")
    assert made("pictures") == ["pictures/00008.png"]
    assert made("pictures/", overwrite=True) == ["pictures/00009.png"]


def write_many(folder: str) -> None:
    destination = Destination.of(folder, 20, overwrite=False)
    for _ in range(20):
        destination.write(PICTURE, SETTINGS, None)


def test_two_at_once_lose_nothing() -> None:
    Path("pictures").mkdir()
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=write_many, args=("pictures",)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
        assert process.exitcode == 0
    assert names() == [f"pictures/{number:05}.png" for number in range(1, 41)]


@pytest.mark.parametrize("output", ["a", "a.gif", "", "a.png.txt"])
def test_a_name_of_no_format(output: str) -> None:
    with pytest.raises(RequestError, match=r"must end in \.png"):
        Destination.of(output, 1, overwrite=False)


@pytest.mark.parametrize(
    "output", ["nowhere/a.png", "nowhere/folder/", "/proc/a.png", "/proc/pictures/", f"{'x' * 300}.png", "file/a.png"]
)
def test_a_place_that_takes_no_picture(output: str) -> None:
    Path("file").write_text("")
    with pytest.raises(StorageError):
        Destination.of(output, 1, overwrite=False).try_out(1000)
    assert names() == ["file"]


def test_a_full_disk_is_found_before_the_work() -> None:
    resource = pytest.importorskip("resource")
    destination = Destination.of("a.png", 1, overwrite=False)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))  # as a full disk: the first bytes fit, the next do not
    try:
        with pytest.raises(StorageError, match=r"a\.png cannot be written: File too large"):
            destination.try_out(1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names() == []


def test_a_read_only_disk_is_found_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> NoReturn:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    destination = Destination.of("a.png", 1, overwrite=False)
    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(StorageError, match=r"a\.png cannot be written: Read-only file system"):
        destination.try_out(1000)


@pytest.mark.parametrize(("output", "quality"), [("a.png", 90), ("a.jpg", 0), ("a.webp", 101), ("pictures/", 50)])
def test_a_quality_that_means_nothing(output: str, quality: int) -> None:
    with pytest.raises(RequestError, match="--quality"):
        Destination.of(output, 1, overwrite=False).check_quality(quality)
