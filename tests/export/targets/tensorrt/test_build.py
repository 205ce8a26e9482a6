"""A whole engine for TensorRT, base and refiner, on a stand-in of the library: built, gated and run on the same card.

What the library makes of the files is not tested here, since it has not run.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pocketxl.engine.check import check_engine
from pocketxl.engine.folder.manifest import Manifest, read_manifest
from pocketxl.engine.pipeline import Pipeline
from pocketxl.export.build import build
from pocketxl.export.publish.existing import find_engine
from pocketxl.export.reference.parity import psnr_db

from ....fixtures.builds import make_quick
from ....fixtures.onnx_program import SCRATCH, SCRATCH_PER_NUMBER
from ....fixtures.tensorrt_full_on_host import FullLibrary, PreviewFeature
from ....tolerances import HALF_PICTURE_DB


@pytest.fixture
def engine(
    library: FullLibrary, tiny_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    make_quick(monkeypatch, tmp_path / "cache")
    build(tiny_folders["base"], tmp_path / "engine", refiner=tiny_folders["refiner"], target="tensorrt")
    yield tmp_path / "engine"
    assert library.driver.closed  # which holds that nothing is left on the card


def picture(engine: Path) -> np.ndarray:
    with Pipeline.load(engine, threads=1) as pipe:
        output = pipe("a red apple", seed=7, num_inference_steps=2, width=64, height=64, output_type="np")
        found: np.ndarray = output.images[0]
        return found


def test_it_is_built_gated_and_run(
    engine: Path, library: FullLibrary, tiny_engine: Path, tiny_folders: dict[str, Path]
) -> None:
    manifest = read_manifest(engine)
    assert (manifest.target, manifest.recipe, manifest.measured_on) == ("tensorrt", "fp16", "host memory")
    assert manifest.quality["psnr_db"] > HALF_PICTURE_DB
    for entry in manifest.components.values():
        assert (entry.runner, entry.quality_of) == ("tensorrt_full", "engine")
        assert 0 < entry.quality["relative_error"] < 1e-2
    the_library_was_told_what_it_takes(library, manifest)
    working_memory_is_the_library_s(manifest)
    assert psnr_db(float(np.square(picture(engine) - picture(tiny_engine)).mean()), 1.0) > HALF_PICTURE_DB
    assert all(check.passed and check.device == "host memory" for check in check_engine(engine))
    another_card_builds_again(engine, library, tiny_folders)


def the_library_was_told_what_it_takes(library: FullLibrary, manifest: Manifest) -> None:
    assert len(library.built) == len(manifest.components)
    for built in library.built:
        assert built.preview == {PreviewFeature.RUNTIME_ACTIVATION_RESIZE_10_10}
        assert built.decomposable == [True, True], "whether there is a fused kernel is the library's to know"
        assert built.profiles


def working_memory_is_the_library_s(manifest: Manifest) -> None:
    """The U-Net's: what the stand-in asks for, and the prediction."""
    entry = manifest.components["base/unet"]
    for batch, side in ((1, 8), (2, 128)):
        numbers = batch * 4 * side * side
        asked = SCRATCH + SCRATCH_PER_NUMBER * numbers + 4 * numbers
        found = entry.activation.bytes_at((8 * side) ** 2, batch=batch)
        assert asked <= found <= 1.05 * asked + SCRATCH


def another_card_builds_again(engine: Path, library: FullLibrary, folders: dict[str, Path]) -> None:
    def again() -> tuple[bool, tuple[str, ...]]:
        report = build(folders["base"], engine, refiner=folders["refiner"], target="tensorrt")
        return report.cached, report.reasons

    assert again() == (True, ())
    library.driver.capability = (9, 0)
    key = read_manifest(engine).build_key
    found = find_engine(engine, {**key, "machine's GPU": "host memory (compute capability 9.0)"})
    (reason,) = found.reasons
    assert reason == "machine's GPU: host memory (compute capability 8.9) -> host memory (compute capability 9.0)"
    assert again()[1] == found.reasons
