"""An engine that is there already: found, mended, or why not; what is somebody else's is never replaced."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from pocketxl.engine.errors import StorageError
from pocketxl.engine.folder.manifest import read_manifest, verify
from pocketxl.export.publish.existing import find_engine
from pocketxl.export.publish.workspace import Finished

from ...fixtures.workspaces import SIZE, build, keys, make, snapshot, stop, work_folder

pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")


def test_a_miss_says_why(tmp_path: Path) -> None:
    destination = tmp_path / "engine"
    assert find_engine(destination, keys("int8")).reasons == (f"there is no engine at {destination} yet",)
    build(destination)
    found = find_engine(destination, keys("fp32"))
    assert found.manifest is None
    assert found.reasons[0] == "base/conditioner: base/conditioner int8 -> base/conditioner fp32"
    (destination / "engine.json").write_text("{}")
    assert "engine.json" in find_engine(destination, keys("int8")).reasons[0]
    build(destination)  # a damaged engine is replaced
    verify(destination)


@pytest.mark.parametrize(
    ("damage", "says"), [("flip", "was altered"), ("cut", "has 999 bytes"), ("remove", "is missing")]
)
def test_a_damaged_file_is_found_and_only_its_component_is_built_again(tmp_path: Path, damage: str, says: str) -> None:
    destination = tmp_path / "engine"
    build(destination)
    whole, file = snapshot(destination), destination / "base" / "unet" / "model.onnx.data"
    times = file.stat()
    if damage == "flip":
        file.write_bytes(b"X" + file.read_bytes()[1:])
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    else:
        file.unlink()
    found = find_engine(destination, keys("int8"))
    assert found.damaged == {"base/unet/model.onnx.data"}
    assert says in found.reasons[0]
    assert "base/unet/model.onnx.data" in found.reasons[0]
    assert found.manifest is not None
    intact = {
        name: Finished(key=keys("int8")[name], files=entry.files, facts={"weight_bytes": SIZE})
        for name, entry in found.manifest.components.items()
    }
    assert build(destination, intact=intact) == ["base/unet"]
    assert snapshot(destination) == whole
    assert list(tmp_path.iterdir()) == [destination]


def test_leftovers_behind_the_last_step_are_removed_by_a_hit(tmp_path: Path) -> None:
    destination = tmp_path / "engine"
    build(destination)
    shutil.copytree(destination, work_folder(destination) / "engine")
    assert not find_engine(destination, keys("int8")).reasons
    assert list(tmp_path.iterdir()) == [destination]


def test_a_hit_leaves_the_unfinished_work_of_another_recipe_alone(tmp_path: Path) -> None:
    destination = tmp_path / "engine"
    build(destination)
    with pytest.raises(KeyboardInterrupt):
        build(destination, recipe="fp32", maker=stop)
    assert not find_engine(destination, keys("int8")).reasons
    assert build(destination, recipe="fp32") == ["vae_decoder"]


def test_somebody_s_folder_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("three years of work")
    with pytest.raises(StorageError, match=r"not an engine folder \(it holds thesis\.txt\)"):
        build(tmp_path)
    destination = tmp_path / "engine"
    build(destination)
    (destination / "picture.png").write_bytes(b"my picture")
    with pytest.raises(StorageError, match=r"picture\.png"):
        build(destination, recipe="fp32")
    assert (destination / "picture.png").exists()
    (destination / "picture.png").rename(destination / "base" / "note.txt")
    with pytest.raises(StorageError, match=r"base/note\.txt.*move what is yours elsewhere"):
        build(destination, recipe="fp32")
    assert (destination / "base" / "note.txt").exists()


@pytest.mark.parametrize("litter", [".DS_Store", "Thumbs.db", "desktop.ini", "base/.DS_Store", "._engine.json"])
def test_what_the_system_strews_is_nobody_s_file(tmp_path: Path, litter: str) -> None:
    destination = tmp_path / "engine"
    build(destination)
    (destination / litter).write_bytes(b"x")
    assert not find_engine(destination, keys("int8")).reasons
    build(destination, recipe="fp32")
    assert read_manifest(destination).recipe == "fp32"


def test_a_file_that_was_put_there_during_the_build_is_not_lost(tmp_path: Path) -> None:
    destination = tmp_path / "engine"
    build(destination)

    def busy(name: str, folder: Path, **options: Any) -> dict[str, Any]:
        (destination / "picture.png").write_bytes(b"my picture")
        return make(name, folder, **options)

    with pytest.raises(StorageError, match=r"picture\.png"):
        build(destination, recipe="fp32", maker=busy)
    (destination / "picture.png").unlink()
    assert build(destination, recipe="fp32") == []
