"""The build key tells equal builds from changed ones and says what changed; known digests are not computed again."""

import os
import time
from pathlib import Path

import pytest

from pocketxl.export.publish import keys
from pocketxl.export.quantize.recipes import RECIPES

SOURCES = {"base.unet": "a" * 64, "refiner.unet": "b" * 64, "vae": "c" * 64}


def parts(**changes: object) -> dict[str, str]:
    arguments = {
        "sources": SOURCES,
        "target": "cpu",
        "recipe": RECIPES["int8"],
        "configuration": {"size": 64},
        **changes,
    }
    return keys.build_parts(**arguments)  # type: ignore[arg-type]


def test_equal_builds_have_equal_parts_and_no_miss() -> None:
    assert parts() == parts()
    assert keys.explain_miss(parts(), parts()) == []


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"recipe": RECIPES["fp32"]}, "recipe: int8 -> fp32"),
        ({"target": "rtx-sm89"}, "target: cpu -> rtx-sm89"),
        ({"sources": {**SOURCES, "vae": "d" * 64}}, "weights of vae: cccccccccccc… -> dddddddddddd…"),
        ({"sources": {"base.unet": "a" * 64, "vae": "c" * 64}}, "weights of refiner.unet: bbbbbbbbbbbb… -> (none)"),
    ],
)
def test_a_miss_names_exactly_what_changed(changes: dict[str, object], line: str) -> None:
    assert keys.explain_miss(parts(), parts(**changes)) == [line]


def test_a_recipe_that_changed_under_its_name_is_a_miss() -> None:
    import dataclasses

    other = dataclasses.replace(RECIPES["int8"], min_psnr_db=1.0)
    (line,) = keys.explain_miss(parts(), parts(recipe=other))
    assert line.startswith("recipe content: ")


def test_library_versions_are_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = parts()
    original = keys.metadata.version
    monkeypatch.setattr(keys.metadata, "version", lambda name: "99.0" if name == "onnxruntime" else original(name))
    (line,) = keys.explain_miss(before, parts())
    assert line == f"library onnxruntime: {original('onnxruntime')} -> 99.0"


def test_a_component_depends_on_its_own_weights_only() -> None:
    other = parts(sources={**SOURCES, "vae": "d" * 64})
    assert keys.component_key(parts(), ["base.unet"]) == keys.component_key(other, ["base.unet"])
    assert keys.component_key(parts(), ["vae"]) != keys.component_key(other, ["vae"])
    assert keys.component_key(parts(), ["vae"], part=1) != keys.component_key(parts(), ["vae"], part=2)


def test_the_exporter_digest_follows_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "pocketxl"
    for name in (
        "export/graph/master.py",
        "export/cli.py",
        "export/miniature/data.py",
        "engine/models/unet.py",
        "engine/specs.py",
        "engine/architecture.py",
        "engine/topology.py",
    ):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_bytes(b"one\ntwo\n")
    monkeypatch.setattr(keys, "__file__", str(package / "export" / "publish" / "keys.py"))
    first = keys.exporter_digest()
    (package / "export" / "cli.py").write_bytes(b"x")
    (package / "export" / "miniature" / "data.py").write_bytes(b"x")
    (package / "engine" / "models" / "unet.py").write_bytes(b"one\r\ntwo\r\n")
    assert keys.exporter_digest() == first
    (package / "engine" / "models" / "unet.py").write_bytes(b"one\nthree\n")
    assert keys.exporter_digest() != first


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
    first = keys.cached_digest([file], "unet", compute, cache)
    assert keys.cached_digest([file], "unet", compute, cache) == first
    assert compute.calls == 1
    keys.cached_digest([file], "vae", compute, cache)
    assert compute.calls == 2
    old_file(file, b"WEIGHTS")
    assert keys.cached_digest([file], "unet", compute, cache) != first


def test_a_file_that_was_just_written_is_not_trusted(tmp_path: Path) -> None:
    file, cache, compute = tmp_path / "w", tmp_path / "digests.json", Counted()
    file.write_bytes(b"weights")
    keys.cached_digest([file], "unet", compute, cache)
    keys.cached_digest([file], "unet", compute, cache)
    assert compute.calls == 2


def test_a_file_that_changes_while_it_is_hashed_is_not_kept(tmp_path: Path) -> None:
    file, cache = old_file(tmp_path / "w"), tmp_path / "digests.json"

    def compute() -> str:
        old_file(file, b"changed meanwhile")
        return "e" * 64

    keys.cached_digest([file], "unet", compute, cache)
    assert not cache.exists()


@pytest.mark.parametrize("damage", [b"", b"[]", b"{", b'{"x": 3}', b"\xff", b"[" * 100_000])
def test_a_damaged_cache_only_costs_time(tmp_path: Path, damage: bytes) -> None:
    file, cache, compute = old_file(tmp_path / "w"), tmp_path / "digests.json", Counted()
    cache.write_bytes(damage)
    assert keys.cached_digest([file], "unet", compute, cache) == f"{1:064x}"
    assert keys.cached_digest([file], "unet", compute, cache) == f"{1:064x}"


def test_a_cache_that_cannot_be_written_only_costs_time(tmp_path: Path) -> None:
    file, compute = old_file(tmp_path / "w"), Counted()
    (tmp_path / "blocked").write_bytes(b"a file where the cache's folder should be")
    assert keys.cached_digest([file], "unet", compute, tmp_path / "blocked" / "digests.json") == f"{1:064x}"


def test_the_cache_folder_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POCKETXL_CACHE", str(tmp_path))
    assert keys.cache_folder() == tmp_path
