"""The old engine stays until the new one is complete, whenever the builder dies."""

from pathlib import Path
from typing import Any

import pytest

from pocketxl.engine.folder.manifest import read_manifest, verify
from pocketxl.export.publish import destination as place
from pocketxl.export.publish import workspace as publish
from pocketxl.export.publish.existing import find_engine

from ...fixtures.workspaces import build, keys, make, snapshot, work_folder

pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")


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


def test_an_empty_folder_and_a_link_to_a_folder_are_fine_destinations(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    build(tmp_path / "link")
    build(tmp_path / "link", recipe="fp32")
    assert (tmp_path / "link").is_symlink()
    assert read_manifest(tmp_path / "real").recipe == "fp32"
