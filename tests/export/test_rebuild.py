"""A build whose inputs have changed makes again exactly what they touch, and says why."""

from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest

from pocketxl.engine.folder.manifest import read_manifest
from pocketxl.engine.progress import Silent
from pocketxl.export.build import build
from pocketxl.export.checkpoint.open import open_checkpoint
from pocketxl.export.job import Job, prepare
from pocketxl.export.job_keys import component_keys
from pocketxl.export.mend import intact_components
from pocketxl.export.publish.existing import Existing
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.targets import TARGETS

from ..fixtures.builds import components_made
from ..fixtures.command_line import files, run

pytestmark = pytest.mark.usefixtures("quick_builds")
BASE = ("text_encoder", "text_encoder_2", "base/conditioner", "base/unet", "vae_decoder", "vae_encoder")


def job(folders: dict[str, Path], target: str = "rtx", recipe: str = "int8-weight", refiner: bool = False) -> Job:
    return prepare(
        open_checkpoint(folders["base"]),
        open_checkpoint(folders["refiner"]) if refiner else None,
        target=TARGETS[target],
        recipe=RECIPES[recipe],
        calibration_size=None,
        progress=Silent(),
    )


def touched(before: Job, after: Job) -> set[str]:
    old, new = component_keys(before), component_keys(after)
    return {name for name in new if old.get(name) != new[name]}


def test_a_recipe_touches_what_it_does_otherwise(tiny_folders: dict[str, Path]) -> None:
    plain = job(tiny_folders)
    assert touched(plain, job(tiny_folders)) == set()
    assert touched(plain, job(tiny_folders, recipe="int4-weight")) == {"base/conditioner", "base/unet"}
    assert touched(plain, job(tiny_folders, recipe="fp16")) == set(BASE)


def test_gpu_generations_touch_everything(tiny_folders: dict[str, Path]) -> None:
    for target in ("rtx-sm89", "rtx-all"):
        other = job(tiny_folders, target)
        assert touched(job(tiny_folders), other) == set(BASE)
        assert other.parts["target"] == target


def test_a_library_touches_what_is_built_with_it(
    tiny_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {target: job(tiny_folders, target) for target in ("rtx", "cpu")}
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "99" if name == "tensorrt-rtx-cu12" else real(name))
    assert touched(before["rtx"], job(tiny_folders, "rtx")) == set(BASE)
    assert touched(before["cpu"], job(tiny_folders, "cpu")) == set()


def test_other_weights_touch_everything_since_all_were_in_the_run_that_is_watched(
    tiny_folders: dict[str, Path],
) -> None:
    both = job(tiny_folders, refiner=True)
    assert touched(job(tiny_folders), both) == set(both.assembly.components)


def test_what_nothing_touches_is_taken_over_from_the_engine_that_is_replaced(
    tiny_folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """If it is whole; and what comes of it is to the byte what a fresh build makes."""
    base, engine, fresh = tiny_folders["base"], tmp_path / "engine", tmp_path / "fresh"
    with components_made() as made:
        report = build(base, engine, recipe="int8-weight")
    assert (tuple(made), report.taken) == (BASE, ())
    graph = engine / "text_encoder_2/model.onnx"
    graph.unlink()
    graph.write_bytes(b"damaged")
    layers = "base/unet:*ff.net.2"
    with components_made() as made:
        shown = run(capsys, "build", base, "-o", engine, "--recipe", "int4-weight", "--keep", layers)
    assert shown.status == 0, shown.err
    assert made == ["text_encoder_2", "base/conditioner", "base/unet"]
    assert "built because: recipe: int8-weight -> int4-weight\n" in shown.out
    assert "built because: kept layers: (none) -> in base/unet (" in shown.out
    assert "taken over, since none of it touches them: text_encoder, vae_decoder, vae_encoder\n" in shown.out
    build(base, fresh, recipe="int4-weight", keep=[layers])
    assert files(engine) == files(fresh)


def test_an_engine_of_an_older_release_has_no_keys_and_nothing_of_it_is_taken(tiny_engine: Path) -> None:
    manifest = read_manifest(tiny_engine)
    keys = {name: entry.key for name, entry in manifest.components.items()}
    assert all(keys.values())
    assert set(intact_components(Existing(outdated=manifest), keys)) == set(keys)
    assert intact_components(Existing(outdated=manifest), dict.fromkeys(keys, "0" * 64)) == {}
    old = replace(manifest, components={n: replace(e, key="") for n, e in manifest.components.items()})
    assert intact_components(Existing(outdated=old), keys) == {}
    assert set(intact_components(Existing(manifest=old), keys)) == set(keys), "built from the same parts, and damaged"
