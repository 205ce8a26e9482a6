"""An engine folder is whole or absent, and what its builder has finished is used again."""

import json
import random
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pocketxl.engine.errors import IntegrityError
from pocketxl.engine.folder.manifest import read_manifest, verify
from pocketxl.export.publish.existing import find_engine
from pocketxl.export.publish.workspace import workspace

from ...fixtures.manifests import COMPONENTS
from ...fixtures.workspaces import build, describe, keys, make, snapshot, start, stop, work_folder

pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")


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
