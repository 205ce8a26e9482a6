"""The build key tells equal builds from changed ones and says what changed; known digests are not computed again."""

from importlib import metadata
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
        "libraries": ("numpy", "onnxruntime", "torch"),
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
    original = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "99.0" if name == "onnxruntime" else original(name))
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
        "engine/companion.py",
        "engine/image_prompt.py",
        "engine/t2i_adapter.py",
        "engine/upscaler.py",
        "engine/topology.py",
        "engine/bands/program.py",
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
