"""What a library keeps of a component is believed only where this user has written it, whole and for this purpose."""

import errno
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from pocketxl.engine.errors import StorageError
from pocketxl.engine.folder import files, hashed
from pocketxl.engine.folder.files import is_litter
from pocketxl.engine.runners import prepared_files
from pocketxl.engine.runners.prepared_files import GRAPH, WEIGHTS, PreparedFiles, remove_prepared


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POCKETXL_CACHE", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def model(tmp_path: Path, home: Path) -> Path:
    (tmp_path / "engine").mkdir()
    return tmp_path / "engine" / "model.onnx"


def making(content: bytes = b"packed") -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / GRAPH).write_bytes(b"graph of " + content)
        (folder / WEIGHTS).write_bytes(content)

    return make


def everything(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def test_it_lies_beside_the_model_and_is_no_stranger_there(model: Path, home: Path) -> None:
    kept = PreparedFiles(model, "processor")
    assert kept.find() is None
    size = kept.write(making(), 1)
    found = PreparedFiles(model, "processor").find()
    assert found is not None
    assert (found.read_bytes(), found.with_name(WEIGHTS).read_bytes()) == (b"graph of packed", b"packed")
    assert found.parent.parent == model.parent
    assert found.parent.name.startswith("model.onnx.")
    assert size == sum(path.stat().st_size for path in found.parent.iterdir())
    assert all(is_litter(path.name) for path in found.parent.iterdir())
    assert PreparedFiles(model, "another processor").find() is None


def test_a_folder_that_moved_is_believed(model: Path, tmp_path: Path) -> None:
    PreparedFiles(model, "processor").write(making(), 1)
    model.parent.rename(tmp_path / "moved")
    assert PreparedFiles(tmp_path / "moved" / model.name, "processor").find() is not None


def test_a_folder_from_another_user_is_not(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PreparedFiles(model, "processor").write(making(), 1)
    shutil.copytree(model.parent, tmp_path / "copy")
    monkeypatch.setenv("POCKETXL_CACHE", str(tmp_path / "home of another"))
    assert PreparedFiles(tmp_path / "copy" / model.name, "processor").find() is None


def test_what_was_made_for_another_purpose_is_not_believed_under_this_one_s_name(model: Path) -> None:
    mine, other = PreparedFiles(model, "processor"), PreparedFiles(model.with_name("other.onnx"), "another")
    mine.write(making(), 1)
    other.write(making(b"other"), 1)
    place, strange = mine.find(), other.find()
    assert place is not None
    assert strange is not None
    shutil.rmtree(place.parent)
    strange.parent.rename(place.parent)
    assert mine.find() is None


@pytest.mark.parametrize("name", [GRAPH, WEIGHTS, "digests.kernels"])
@pytest.mark.parametrize("damage", ["flipped", "cut off", "gone"])
def test_what_is_damaged_is_passed_over(name: str, damage: str, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = PreparedFiles(model, "processor")
    kept.write(making(), 1)
    found = kept.find()
    assert found is not None
    file = found.with_name(name)
    content = file.read_bytes()
    file.unlink()
    if damage != "gone":
        file.write_bytes(content[:-1] + (bytes([content[-1] ^ 1]) if damage == "flipped" else b""))
    monkeypatch.setattr(files, "_hashed", {})  # the next process
    assert kept.find() is None
    kept.write(making(), 1)
    assert kept.find() is not None, "made anew"


def test_large_ones_are_hashed_once(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashed, "LEAST_BYTES", 1)
    monkeypatch.setattr(hashed, "SETTLED", -1)
    kept = PreparedFiles(model, "processor")
    kept.write(making(), 1)
    monkeypatch.setattr(files, "_hashed", {})

    def never(*_: object) -> NoReturn:
        raise AssertionError("hashed again")

    monkeypatch.setattr(files, "_sha256", never)
    assert kept.find() is not None


def test_where_the_folder_cannot_be_written_it_lies_in_the_user_s_cache(tmp_path: Path, home: Path) -> None:
    (tmp_path / "file").write_text("")
    model = tmp_path / "file" / "model.onnx"  # below a file: refused to root too
    kept = PreparedFiles(model, "processor")
    kept.write(making(), 1)
    found = kept.find()
    assert found is not None
    assert found.is_relative_to(home)
    assert remove_prepared(model) > 0
    assert kept.find() is None


def test_without_any_place_it_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("POCKETXL_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="POCKETXL_CACHE"):
        PreparedFiles(tmp_path / "file" / "model.onnx", "processor").write(making(), 1)
    (tmp_path / "engine").mkdir()
    with pytest.raises(StorageError, match="POCKETXL_CACHE"):  # nobody would believe it
        PreparedFiles(tmp_path / "engine" / "model.onnx", "processor").write(making(), 1)
    assert everything(tmp_path / "engine") == []


def test_a_disk_without_room_is_told_before_anything_is_made(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=3_000_000_000))

    def make(folder: Path) -> NoReturn:
        raise AssertionError("made")

    with pytest.raises(StorageError, match=r"up to 5\.0 GB are needed, 3\.0 GB are free; free some space"):
        PreparedFiles(model, "processor").write(make, 5_000_000_000)
    assert everything(model.parent) == []


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_nothing_half_written_is_left(error: BaseException, model: Path, home: Path) -> None:
    def make(folder: Path) -> None:
        (folder / GRAPH).write_bytes(b"half")
        raise error

    with pytest.raises(StorageError if isinstance(error, OSError) else KeyboardInterrupt):
        PreparedFiles(model, "processor").write(make, 1)
    assert everything(model.parent) == []
    assert not home.exists()


def test_of_two_processes_the_first_one_s_stays(model: Path) -> None:
    first, second = PreparedFiles(model, "processor"), PreparedFiles(model, "processor")

    def make(folder: Path) -> None:
        first.write(making(b"first"), 1)
        making(b"second")(folder)

    second.write(make, 1)
    found = second.find()
    assert found is not None
    assert found.with_name(WEIGHTS).read_bytes() == b"first"
    assert len(list(model.parent.iterdir())) == 1


def test_what_is_removed_while_it_is_written_is_told(model: Path) -> None:
    def make(folder: Path) -> None:
        remove_prepared(model)
        making()(folder)

    with pytest.raises(StorageError, match="was removed or changed meanwhile; run it again"):
        PreparedFiles(model, "processor").write(make, 1)
    assert everything(model.parent) == []


def test_what_a_killed_process_left_goes_with_the_next_one_and_what_a_living_one_writes_stays(model: Path) -> None:
    killed, living = (model.parent / f".{model.name}.{name}.prepared-part" for name in ("dead", "beef"))
    for folder in (killed, living):
        folder.mkdir()
        (folder / WEIGHTS).write_bytes(b"half")
    long_ago = time.time() - prepared_files.ABANDONED - 1
    for path in (killed / WEIGHTS, killed, living):  # the living one's file was written to just now
        os.utime(path, (long_ago, long_ago))
    PreparedFiles(model, "processor").write(making(), 1)
    assert not killed.exists()
    assert living.is_dir()


def test_a_full_disk_is_told_before_the_cache_s_folder_is_there(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    make = Path.mkdir

    def mkdir(self: Path, *args: Any, **settings: Any) -> None:
        if self.is_relative_to(home):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        make(self, *args, **settings)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(StorageError, match=r"No space left.*are needed, .* are free"):
        PreparedFiles(tmp_path / "file" / "model.onnx", "processor").write(making(), 1)


def test_one_form_of_a_file_is_kept(model: Path, home: Path) -> None:
    PreparedFiles(model.with_name("other.onnx"), "processor").write(making(b"other"), 1)
    PreparedFiles(model, "processor").write(making(), 1)
    PreparedFiles(model, "processor, newer").write(making(), 1)
    assert PreparedFiles(model, "processor").find() is None
    assert PreparedFiles(model, "processor, newer").find() is not None
    assert PreparedFiles(model.with_name("other.onnx"), "processor").find() is not None


def test_all_of_it_is_removed(model: Path, home: Path) -> None:
    size = PreparedFiles(model, "processor").write(making(), 1)
    killed = model.parent / f".{model.name}.00ff.prepared-part"
    killed.mkdir()
    (killed / WEIGHTS).write_bytes(b"12345")
    assert remove_prepared(model) == size + 5
    assert everything(model.parent) == []
    assert [path for path in home.rglob("*") if path.is_file()] == [], "its notes too"
    assert remove_prepared(model) == 0


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_a_link_is_not_followed(model: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / WEIGHTS).write_bytes(b"dear")
    (model.parent / f"{model.name}.00ff.prepared").symlink_to(tmp_path / "elsewhere")
    assert remove_prepared(model) == 0
    assert (tmp_path / "elsewhere" / WEIGHTS).exists()
