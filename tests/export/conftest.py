"""Checkpoints that several tests only read."""

import os
import time
from pathlib import Path

import pytest

from ..fixtures.builds import make_quick
from ..fixtures.original_layout import write_single_file


@pytest.fixture(scope="session")
def tiny_files(tiny_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same checkpoints as single files in the original layout, by kind."""
    root = tmp_path_factory.mktemp("files")
    return {kind: write_single_file(folder, root / f"{kind}.safetensors") for kind, folder in tiny_folders.items()}


@pytest.fixture
def quick_builds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """See `make_quick`."""
    make_quick(monkeypatch, tmp_path / "cache")


def settle(*paths: Path) -> None:
    """Date files back, so that their digests are kept (a file of this second could still be written)."""
    for path in paths:
        for file in [path] if path.is_file() else path.rglob("*"):
            os.utime(file, (time.time() - 100, time.time() - 100))


@pytest.fixture
def engine(tiny_folders: dict[str, Path], tmp_path: Path) -> Path:
    """One that is built anew for each test, with the digests of its source kept."""
    from pocketxl.export.build import build

    settle(tiny_folders["base"])
    build(tiny_folders["base"], tmp_path / "engine", recipe="fp32")
    return tmp_path / "engine"
