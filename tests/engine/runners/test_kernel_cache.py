"""Compiled kernels are believed only where this user has written them, whole."""

import os
from pathlib import Path

import pytest

from pocketxl.engine.folder.files import is_litter
from pocketxl.engine.runners.kernel_cache import MOST, KernelCache


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POCKETXL_CACHE", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    (tmp_path / "engine").mkdir()
    return tmp_path / "engine" / "model.engine"


def kernels_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.kernels"))


def test_they_lie_beside_the_engine_and_are_no_strangers_there(engine: Path, home: Path) -> None:
    assert KernelCache(engine, "card").read() is None
    KernelCache(engine, "card").write(b"compiled")
    assert KernelCache(engine, "card").read() == b"compiled"
    assert KernelCache(engine, "another card").read() is None
    (path,) = kernels_in(engine.parent)
    assert path.name.startswith("model.engine.")
    assert is_litter(path.name)
    assert kernels_in(home) == []


def test_where_the_engine_cannot_be_written_they_lie_in_the_user_s_cache(tmp_path: Path, home: Path) -> None:
    (tmp_path / "file").write_text("")
    engine = tmp_path / "file" / "model.engine"  # below a file: refused to root too
    KernelCache(engine, "card").write(b"compiled")
    assert KernelCache(engine, "card").read() == b"compiled"
    assert len(kernels_in(home)) == 1


@pytest.mark.parametrize("writable", [True, False])
def test_the_ones_that_were_used_last_stay(tmp_path: Path, home: Path, writable: bool) -> None:
    folder = tmp_path / "engine"
    if writable:
        folder.mkdir()
    else:
        folder.write_text("")
    one, other = folder / "model.engine", folder / "model.engine2"
    KernelCache(other, "card").write(b"another file's")
    for number in range(MOST):
        KernelCache(one, f"card {number}").write(b"compiled %d" % number)
        for path in kernels_in(tmp_path):
            os.utime(path, ns=(0, path.stat().st_mtime_ns - 10**9))  # clocks of file systems are coarse
    assert KernelCache(one, "card 0").read() == b"compiled 0", "used again"
    KernelCache(one, "one more").write(b"compiled more")
    found = [KernelCache(one, f"card {number}").read() for number in range(MOST)]
    assert found == [b"compiled 0", None, *(b"compiled %d" % number for number in range(2, MOST))]
    assert KernelCache(one, "one more").read() == b"compiled more"
    assert KernelCache(other, "card").read() == b"another file's"
    assert len([path for path in (home / "kernels").iterdir() if not path.suffix]) == MOST + 1, "notes"


@pytest.mark.parametrize("damage", [b"", b"compile", b"compiled!", b"Compiled"])
def test_damage_is_passed_over_and_written_anew(engine: Path, home: Path, damage: bytes) -> None:
    KernelCache(engine, "card").write(b"compiled")
    (path,) = kernels_in(engine.parent)
    path.write_bytes(damage)
    cache = KernelCache(engine, "card")
    assert cache.read() is None
    cache.write(b"compiled")
    assert KernelCache(engine, "card").read() == b"compiled"


def test_what_came_with_a_copied_folder_is_not_believed(
    engine: Path, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    KernelCache(engine, "card").write(b"compiled")
    monkeypatch.setenv("POCKETXL_CACHE", str(tmp_path / "another user"))
    assert KernelCache(engine, "card").read() is None


def test_what_is_replaced_is_no_longer_believed(engine: Path, home: Path) -> None:
    cache = KernelCache(engine, "card")
    cache.write(b"old")
    (path,) = kernels_in(engine.parent)
    cache.write(b"new")
    assert KernelCache(engine, "card").read() == b"new"
    path.write_bytes(b"old")
    assert KernelCache(engine, "card").read() is None
    assert len(list(home.rglob("*"))) == 2, "the folder and one note"


def test_without_a_place_nothing_happens(engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("POCKETXL_CACHE", str(tmp_path / "file"))
    KernelCache(engine, "card").write(b"compiled")
    assert KernelCache(engine, "card").read() is None
    assert kernels_in(tmp_path) == []
