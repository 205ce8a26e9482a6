"""Digests of checkpoints are remembered, and never trusted too long."""

import os
import time
from pathlib import Path

import pytest

from pocketxl.export.publish import digests
from pocketxl.export.publish.digests import cached_digest


class Counted:
    """A digest that counts how often it was computed."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        return f"{self.calls:064x}"


def old_file(path: Path, content: bytes = b"weights") -> Path:
    path.write_bytes(content)
    os.utime(path, (time.time() - 60, time.time() - 60))
    return path


def test_a_digest_is_computed_once_for_each_component_and_file(tmp_path: Path) -> None:
    file, cache, compute = old_file(tmp_path / "w"), tmp_path / "cache" / "digests.json", Counted()
    first = cached_digest([file], "unet", compute, cache)
    assert cached_digest([file], "unet", compute, cache) == first
    assert compute.calls == 1
    cached_digest([file], "vae", compute, cache)
    assert compute.calls == 2
    old_file(file, b"WEIGHTS")
    assert cached_digest([file], "unet", compute, cache) != first


def test_a_file_that_was_just_written_is_not_trusted(tmp_path: Path) -> None:
    file, cache, compute = tmp_path / "w", tmp_path / "digests.json", Counted()
    file.write_bytes(b"weights")
    cached_digest([file], "unet", compute, cache)
    cached_digest([file], "unet", compute, cache)
    assert compute.calls == 2


def test_a_file_that_changes_while_it_is_hashed_is_not_kept(tmp_path: Path) -> None:
    file, cache = old_file(tmp_path / "w"), tmp_path / "digests.json"

    def compute() -> str:
        old_file(file, b"changed meanwhile")
        return "e" * 64

    cached_digest([file], "unet", compute, cache)
    assert not cache.exists()


@pytest.mark.parametrize("damage", [b"", b"[]", b"{", b'{"x": 3}', b"\xff", b"[" * 100_000])
def test_a_damaged_cache_only_costs_time(tmp_path: Path, damage: bytes) -> None:
    file, cache, compute = old_file(tmp_path / "w"), tmp_path / "digests.json", Counted()
    cache.write_bytes(damage)
    assert cached_digest([file], "unet", compute, cache) == f"{1:064x}"
    assert cached_digest([file], "unet", compute, cache) == f"{1:064x}"


def test_a_cache_that_cannot_be_written_only_costs_time(tmp_path: Path) -> None:
    file, compute = old_file(tmp_path / "w"), Counted()
    (tmp_path / "blocked").write_bytes(b"a file where the cache's folder should be")
    assert cached_digest([file], "unet", compute, tmp_path / "blocked" / "digests.json") == f"{1:064x}"


def test_a_digest_of_a_version_that_did_not_look_for_nan_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, cache, compute = old_file(tmp_path / "w"), tmp_path / "digests.json", Counted()
    monkeypatch.setattr(digests, "_LOOKED_FOR", "")
    cached_digest([file], "unet", compute, cache)
    monkeypatch.undo()
    cached_digest([file], "unet", compute, cache)
    assert compute.calls == 2
