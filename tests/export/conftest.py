"""Checkpoints that several tests only read."""

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
