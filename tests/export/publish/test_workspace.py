"""An engine folder is whole or absent, whenever its builder dies, whatever the disk does, and however many build it.

Run as a module, this file is a builder that can be killed: DESTINATION BYTES_PER_FILE PAUSE RECIPE.
"""

import errno
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pocketxl.engine.errors import IntegrityError, StorageError
from pocketxl.engine.folder.files import FileEntry
from pocketxl.engine.folder.manifest import Manifest, read_manifest, verify
from pocketxl.export.publish import destination as place
from pocketxl.export.publish import workspace as publish
from pocketxl.export.publish.existing import find_engine
from pocketxl.export.publish.lock import locked
from pocketxl.export.publish.workspace import Finished, workspace

from ...fixtures.manifests import COMPONENTS, described, entry

ROOT = Path(__file__).resolve().parents[3]
SIZE = 1000


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Power cuts are not tested here; builders in processes of their own still flush."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def keys(recipe: str) -> dict[str, str]:
    return {name: f"{name} {recipe}" for name in COMPONENTS}


def describe(made: Mapping[str, Finished], tokenizer: FileEntry, recipe: str) -> Manifest:
    components = {name: entry(name, done.files) for name, done in made.items()}
    return described(components, [tokenizer], target="fake", recipe=recipe, build_key=keys(recipe))


def make(name: str, folder: Path, *, size: int = SIZE, pause: float = 0.0, recipe: str = "int8") -> dict[str, Any]:
    """One fake component of two files."""
    for file in ("model.onnx", "model.onnx.data"):
        (folder / file).write_bytes((f"{name} {file} {recipe} ".encode() * size)[:size])
        time.sleep(pause / 2)
    return {"weight_bytes": size}


def build(
    destination: Path, *, recipe: str = "int8", maker: Callable[..., Any] = make, needed: int = 0, **options: Any
) -> list[str]:
    """A whole build; returns the components that were really built."""
    began: list[str] = []

    def make_one(name: str, folder: Path) -> Any:
        began.append(name)
        sys.stdout.write(f"begin {name}\n")
        sys.stdout.flush()
        return maker(name, folder, recipe=recipe)

    with workspace(destination, keys=keys(recipe), bytes_needed=needed, **options) as work:
        made = {name: work.component(name, partial(make_one, name)) for name in COMPONENTS}
        work.publish(describe(made, work.write("tokenizer/vocab.json", b"{}"), recipe))
    return began


def start(destination: Path, *, size: int, pause: float, recipe: str = "int8") -> subprocess.Popen[str]:
    arguments = [
        sys.executable,
        "-m",
        "tests.export.publish.test_workspace",
        str(destination),
        str(size),
        str(pause),
        recipe,
    ]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def work_folder(destination: Path) -> Path:
    return destination.with_name(f".{destination.name}.building")


def stop(name: str, folder: Path, **options: Any) -> dict[str, Any]:
    """As `make`, but interrupted at the last component."""
    if name == "vae_decoder":
        raise KeyboardInterrupt
    return make(name, folder, **options)


def test_a_build_appears_whole_and_leaves_nothing_else(tmp_path: Path) -> None:
    destination = tmp_path / "engine"
    assert build(destination) == list(COMPONENTS)
    verify(destination)
    assert list(tmp_path.iterdir()) == [destination]
    found = find_engine(destination, keys("int8"))
    assert found.manifest == read_manifest(destination)
    assert (found.damaged, found.reasons) == (frozenset(), ())


def test_equal_builds_are_byte_identical(tmp_path: Path) -> None:
    build(tmp_path / "a")
    build(tmp_path / "b")
    assert snapshot(tmp_path / "a") == snapshot(tmp_path / "b")


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


def test_a_build_from_the_start_uses_nothing_that_is_there(tmp_path: Path) -> None:
    destination = tmp_path / "engine"
    with pytest.raises(KeyboardInterrupt):
        build(destination, maker=stop)
    assert build(destination, afresh=True) == list(COMPONENTS)


def test_an_error_says_what_it_has_left_and_where(tmp_path: Path) -> None:
    def fail(at: str, name: str, folder: Path, **options: Any) -> dict[str, Any]:
        if name == at:
            raise IntegrityError("a reason")
        return make(name, folder, **options)

    with pytest.raises(IntegrityError) as first:
        build(tmp_path / "engine", maker=partial(fail, COMPONENTS[0]))
    assert getattr(first.value, "__notes__", []) == []
    assert list(tmp_path.iterdir()) == [], "nothing was finished"
    with pytest.raises(IntegrityError) as later:
        build(tmp_path / "engine", maker=partial(fail, "vae_decoder"))
    (note,) = later.value.__notes__
    assert f"kept in {work_folder(tmp_path / 'engine')}" in note
    assert "delete that folder" in note


def test_killed_at_random_moments_it_goes_on_and_ends_as_if_undisturbed(tmp_path: Path) -> None:
    """Kill -9 again and again until a build gets through; then compare with a build that nobody disturbed."""
    build(tmp_path / "reference" / "engine", maker=partial(make, size=200_000))
    destination, rng, builds = tmp_path / "work" / "engine", random.Random(0), []
    for _ in range(60):
        process = start(destination, size=200_000, pause=0.2)
        assert process.stdout is not None
        lines = [process.stdout.readline()]  # the first component has begun, or all were there
        time.sleep(rng.uniform(0.0, 0.35))
        finished = process.poll() is not None
        process.kill()
        lines += process.stdout.readlines()
        process.wait()
        builds.append([line.split()[1] for line in lines if line.startswith("begin")])
        if destination.exists():
            verify(destination)
        if finished and process.returncode == 0:
            break
    else:
        pytest.fail(f"never got through: {builds}")
    assert len(builds) > 1, "no build was killed; the test has lost its point"
    assert snapshot(destination) == snapshot(tmp_path / "reference" / "engine")
    assert not find_engine(destination, keys("int8")).reasons
    assert list(destination.parent.iterdir()) == [destination]


def test_finished_components_are_used_again(tmp_path: Path) -> None:
    def stop_at_vae(name: str, folder: Path, **options: Any) -> dict[str, Any]:
        if name == "vae_decoder":
            (folder / "half").write_bytes(b"half")
            raise KeyboardInterrupt
        return make(name, folder, **options)

    destination = tmp_path / "engine"
    with pytest.raises(KeyboardInterrupt):
        build(destination, maker=stop_at_vae)
    assert not destination.exists()
    assert build(destination) == ["vae_decoder"]
    assert verify(destination).files == 10


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "state"])
def test_a_damaged_finished_component_is_built_again(tmp_path: Path, damage: str) -> None:
    destination = tmp_path / "engine"
    with pytest.raises(KeyboardInterrupt):
        build(destination, maker=stop)
    file = work_folder(destination) / "engine" / "base" / "unet" / "model.onnx.data"
    if damage == "flip":
        file.write_bytes(b"X" + file.read_bytes()[1:])
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "remove":
        file.unlink()
    else:
        (work_folder(destination) / "state.json").write_bytes(b'{"components": {"base/unet": 3}}')
    expected = list(COMPONENTS) if damage == "state" else ["base/unet", "vae_decoder"]
    assert build(destination) == expected
    verify(destination)


def test_work_of_another_key_is_removed_first(tmp_path: Path) -> None:
    destination = tmp_path / "engine"
    with pytest.raises(KeyboardInterrupt):
        build(destination, maker=stop)
    with workspace(destination, keys=keys("fp32")) as work:
        assert work.finished == frozenset()
        assert snapshot(work_folder(destination) / "engine") == {}
    assert build(destination, recipe="fp32") == list(COMPONENTS)


def test_the_old_engine_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    destination = tmp_path / "engine"
    build(destination)
    before = snapshot(destination)

    def fail(name: str, folder: Path, **options: Any) -> dict[str, Any]:
        assert snapshot(destination) == before
        if name == "vae_decoder":
            raise RuntimeError("a defect in the builder")
        return make(name, folder, **options)

    with pytest.raises(RuntimeError, match="a defect"):
        build(destination, recipe="fp32", maker=fail)
    assert snapshot(destination) == before
    assert build(destination, recipe="fp32") == ["vae_decoder"]
    assert read_manifest(destination).recipe == "fp32"


@pytest.mark.parametrize("atomic", [True, False])
def test_an_engine_is_replaced_with_and_without_atomic_exchange(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, atomic: bool
) -> None:
    if not atomic:
        monkeypatch.setattr(place, "exchange", lambda first, second: False)
    destination = tmp_path / "engine"
    build(destination)
    build(destination, recipe="fp32")
    verify(destination)
    assert read_manifest(destination).recipe == "fp32"
    assert list(tmp_path.iterdir()) == [destination]


def test_killed_between_two_renames_the_old_engine_comes_back(tmp_path: Path) -> None:
    destination = tmp_path / "engine"
    build(destination)
    before = snapshot(destination)
    work_folder(destination).mkdir()
    destination.rename(work_folder(destination) / "replaced")
    assert not find_engine(destination, keys("int8")).reasons
    assert snapshot(destination) == before
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


@pytest.mark.parametrize("replacing", [True, False])
def test_killed_between_the_last_rename_and_the_clearing_nothing_stays_after_a_hit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replacing: bool
) -> None:
    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    destination = tmp_path / "engine"
    if replacing:
        build(destination, recipe="fp32")
    with monkeypatch.context() as patch:
        patch.setattr(publish, "clear", killed)
        with pytest.raises(KeyboardInterrupt):
            build(destination)
    assert work_folder(destination).exists()
    assert not find_engine(destination, keys("int8")).reasons
    assert list(tmp_path.iterdir()) == [destination]


def test_two_builders_do_not_share_a_destination(tmp_path: Path) -> None:
    destination = tmp_path / "engine"
    process = start(destination, size=SIZE, pause=30)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("begin")
    try:
        with pytest.raises(StorageError, match=rf"another process \(pid {process.pid}\)"):
            build(destination)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert build(destination) == list(COMPONENTS)  # a dead builder's lock counts for nothing


def test_a_lock_is_left_behind_by_nobody(tmp_path: Path) -> None:
    path = tmp_path / "made" / "lock"
    with locked(path, "it"), pytest.raises(StorageError, match=str(os.getpid())), locked(path, "it"):
        pass
    assert not path.parent.exists()


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


def test_an_empty_folder_and_a_link_to_a_folder_are_fine_destinations(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    build(tmp_path / "link")
    build(tmp_path / "link", recipe="fp32")
    assert (tmp_path / "link").is_symlink()
    assert read_manifest(tmp_path / "real").recipe == "fp32"


def test_a_manifest_that_forgets_a_file_is_not_published(tmp_path: Path) -> None:
    destination = tmp_path / "engine"
    with workspace(destination, keys=keys("int8")) as work:
        made = {name: work.component(name, partial(make, name)) for name in COMPONENTS}
        manifest = describe(made, work.write("tokenizer/vocab.json", b"{}"), "int8")
        work.write("tokenizer/vocab2.json", b"{}")
        with pytest.raises(IntegrityError, match="vocab2"):
            work.publish(manifest)
    assert not destination.exists()


def test_facts_survive_a_restart(tmp_path: Path) -> None:
    facts = {"weight_bytes": 1, "quality": {"psnr_db": 42.5}, "layers": ["a", None, True]}

    def make_once(folder: Path) -> dict[str, Any]:
        (folder / "f").write_bytes(b"x")
        assert not (tmp_path / "made").exists()
        (tmp_path / "made").touch()
        return facts

    for _ in range(2):
        with workspace(tmp_path / "engine", keys=keys("int8")) as work:
            assert json.loads(json.dumps(work.component("base/unet", make_once).facts)) == facts


if __name__ == "__main__":
    target, size, pause, recipe = sys.argv[1:]
    build(Path(target), recipe=recipe, maker=partial(make, size=int(size), pause=float(pause)))
