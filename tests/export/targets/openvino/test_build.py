"""A whole engine for openvino: base and refiner, from the checkpoint to the picture."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from pocketxl.engine.check import check_engine
from pocketxl.engine.errors import IncompatibleError, RequestError
from pocketxl.engine.folder.manifest import read_manifest
from pocketxl.engine.memory.plan import LEAST
from pocketxl.engine.memory.streaming import told
from pocketxl.engine.pipeline import Pipeline
from pocketxl.engine.runners import openvino_bands
from pocketxl.engine.runners.openvino_session import unsuited_processor
from pocketxl.export.build import build
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.reference.parity import psnr_db
from pocketxl.export.targets import TARGETS
from pocketxl.export.targets.openvino.target import OpenVinoTarget

from ....tolerances import OPENVINO_PICTURE_DB

pytest.importorskip("openvino")
pytestmark = pytest.mark.skipif(unsuited_processor() is not None, reason=f"{unsuited_processor()}")
WEIGHTS = Path(__file__).parents[4] / "export" / "miniature" / "weights"
ON_OPENVINO = {"base/unet": "openvino", "refiner/unet": "openvino", "vae_decoder": "openvino_bands"}


@pytest.fixture(scope="module")
def engine(tiny_folders: dict[str, Path], references: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In floats, the decoder over bands too, as that of a wide VAE."""
    made = tmp_path_factory.mktemp("engines") / "openvino"
    with patch.dict(TARGETS, openvino=OpenVinoTarget(band_bytes=0)):
        base, refiner = tiny_folders["base"], tiny_folders["refiner"]
        build(base, made, refiner=refiner, target="openvino", recipe="fp32", reference=references)
    return made


def picture(engine: Path, **settings: Any) -> np.ndarray:
    with Pipeline.load(engine, threads=1) as pipe:
        options: dict[str, Any] = {"num_inference_steps": 4, "width": 64, "height": 64, "output_type": "np", **settings}
        found: np.ndarray = pipe("a red apple", seed=7, **options).images[0]
        return found


def test_u_nets_and_the_decoder_are_for_openvino_and_the_rest_for_onnx_runtime(engine: Path) -> None:
    manifest = read_manifest(engine)
    assert (manifest.target, manifest.recipe) == ("openvino", "fp32")
    for name, entry in manifest.components.items():
        assert entry.runner == ON_OPENVINO.get(name, "ort")
        assert entry.quality_of == "engine"
    assert "openvino" in manifest.tools


def test_the_same_picture_as_on_onnx_runtime(engine: Path, tiny_engine: Path) -> None:
    found, expected = picture(engine), picture(tiny_engine)
    assert psnr_db(float(np.square(found - expected).mean()), 1.0) > OPENVINO_PICTURE_DB
    assert np.array_equal(picture(engine), found), "and always the same one"


def test_a_picture_is_the_same_in_every_batch(engine: Path) -> None:
    with Pipeline.load(engine, threads=1) as pipe:
        options: dict[str, Any] = {"num_inference_steps": 2, "width": 64, "height": 64, "output_type": "np"}
        both = pipe("a red apple", seed=[7, 8], num_images_per_prompt=2, **options).images
        assert np.array_equal(both[0], pipe("a red apple", seed=7, **options).images[0])


def test_it_is_checked_and_planned(engine: Path) -> None:
    assert all(check.passed for check in check_engine(engine, threads=1))
    with Pipeline.load(engine, threads=1) as pipe:
        planned = pipe.plan(width=64, height=64)
        assert planned.peak_bytes > 0


def test_a_budget_without_a_place_for_the_decoder_makes_it_run_over_bands(
    engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_bands, "MOST_WHOLE", 1 << 21)  # at once without bfloat16 too
    size: dict[str, Any] = {"width": 1024, "height": 1024}
    with Pipeline.load(engine, threads=1, memory_budget=LEAST) as pipe:
        peak = pipe.plan(**size).peak_bytes
    budget = peak - (4 << 20)
    with Pipeline.load(engine, threads=1, memory_budget=budget) as pipe:
        plan = pipe.plan(**size)
        assert plan.streamed == {"vae_decoder"}
        assert list(told(engine, plan)) == ["over bands of rows, in less memory: vae_decoder"]
        latents = np.random.default_rng(0).standard_normal((1, 4, 128, 128), dtype=np.float32)
        over_bands = pipe.decode(latents, output_type="np")
    with Pipeline.load(engine, threads=1) as pipe:
        at_once = pipe.decode(latents, output_type="np")
    assert psnr_db(float(np.square(over_bands - at_once).mean()), 1.0) > OPENVINO_PICTURE_DB


def test_what_it_cannot_do_is_said(engine: Path) -> None:
    with pytest.raises(IncompatibleError, match=r"keeps deep features; leave deep_cache at 1, or build .*--target cpu"):
        picture(engine, deep_cache=2)
    with Pipeline.load(engine, threads=1) as pipe, pytest.raises(RequestError, match="deep_cache"):
        pipe("a red apple", deep_cache=0)


def test_other_recipes_are_refused_before_work(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    for recipe in set(RECIPES) - {"fp32", "int8"}:
        with pytest.raises(RequestError, match=f"openvino cannot do recipe '{recipe}'.*: choose one of fp32, int8$"):
            build(tiny_folders["base"], tmp_path / "engine", target="openvino", recipe=recipe)
    assert not list(tmp_path.iterdir())


def test_a_machine_without_openvino_builds_none(
    tiny_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(IncompatibleError, match=r"target openvino needs the package openvino; .*\[openvino\]"):
        build(tiny_folders["base"], tmp_path / "engine", target="openvino")
    assert not list(tmp_path.iterdir())


def test_a_processor_that_lacks_vnni_builds_none(
    tiny_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pocketxl.engine.runners.openvino_session.lacks_vnni", lambda: True)
    with pytest.raises(IncompatibleError, match="with VNNI"):
        build(tiny_folders["base"], tmp_path / "engine", target="openvino")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_miniature_in_8_bits(references: Path, tmp_path: Path) -> None:
    """By the recipe's own limits, which a build enforces; most layers are multiplied in 8 bits."""
    refiner = WEIGHTS / "refiner"
    build(WEIGHTS / "base", tmp_path / "engine", refiner=refiner, target="openvino", reference=references)
    manifest = read_manifest(tmp_path / "engine")
    assert manifest.quality["psnr_db"] > RECIPES["int8"].min_psnr_db
    for name in ("base/unet", "refiner/unet"):
        formats = {format: len(layers) for format, layers in manifest.components[name].formats.items()}
        signed = sum(count for format, count in formats.items() if "signed" in format)
        assert signed > 0.6 * sum(formats.values()), formats
