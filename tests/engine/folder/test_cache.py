"""The user's cache folder."""

from pathlib import Path

import pytest

from pocketxl.engine.folder.cache import cache_folder


def test_the_cache_folder_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POCKETXL_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
