"""One builder at a time."""

import os
from pathlib import Path

import pytest

from pocketxl.engine.errors import StorageError
from pocketxl.export.publish.lock import locked

from ...fixtures.manifests import COMPONENTS
from ...fixtures.workspaces import SIZE, build, start

pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")


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
