"""A disk that is full or refuses is one clear error."""

import errno
from pathlib import Path
from typing import Any

import pytest

from pocketxl.engine.errors import StorageError

from ...fixtures.workspaces import build, make

pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_a_full_disk_is_one_clear_error_and_the_build_goes_on_later(tmp_path: Path) -> None:
    def fill(name: str, folder: Path, **options: Any) -> dict[str, Any]:
        if name == "vae_decoder":
            (folder / "model.onnx.data").symlink_to("/dev/full")
        return make(name, folder, **options)

    destination = tmp_path / "engine"
    with pytest.raises(StorageError, match=r"disk is full: .*\.engine\.building.*needs about 5\.0 MB") as caught:
        build(destination, maker=fill, needed=5_000_000)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert not destination.exists()
    assert build(destination) == ["vae_decoder"]


def test_a_full_disk_told_in_a_library_s_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pocketxl.export.publish import storage

    def fail(name: str, folder: Path, **options: Any) -> dict[str, Any]:
        monkeypatch.setattr(storage, "free_bytes", lambda folder: 0)
        raise RuntimeError("write failed somewhere")

    with pytest.raises(StorageError, match=r"disk is full.*write failed somewhere"):
        build(tmp_path / "engine", maker=fail)


def test_too_little_space_is_told_before_the_work_starts(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"needs about 1000000\.0 GB"):
        build(tmp_path / "engine", needed=10**15, maker=lambda *_args, **_options: pytest.fail("it started"))
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_place_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="is a file"):
        build(tmp_path / "file")
    with pytest.raises((StorageError, NotADirectoryError)):
        build(tmp_path / "file" / "engine")
    with pytest.raises(StorageError, match="choose a folder inside it"):
        build(Path("/"))


def test_a_refused_write_is_one_clear_error(tmp_path: Path) -> None:
    def refuse(name: str, folder: Path, **options: Any) -> dict[str, Any]:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder / "model.onnx"))

    with pytest.raises(StorageError, match=r"model\.onnx cannot be written.*may write to"):
        build(tmp_path / "engine", maker=refuse)
