"""A picture of the trained miniature, all of it on a GPU that interprets our kernels' own source."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pocketxl.engine.miniature
from benchmarks.quantization.torch_runner import TorchRunner
from pocketxl.engine.folder.manifest import FILE_NAME, read_manifest
from pocketxl.engine.folder.openings import files_of
from pocketxl.engine.folder.variants import loaded_bytes
from pocketxl.engine.memory.plan import LEAST
from pocketxl.engine.pipeline import Pipeline
from pocketxl.engine.runners.cuda import CudaRunner
from pocketxl.export.quantize.formats import FLOAT16

from ....fixtures.cuda_programs import ProgramDriver, install
from ....tolerances import FLOAT16_PICTURE, PLAN_TAKEN_AT_LEAST
from .interpreted import written
from .lowering import miniature, module_of

BUNDLED = Path(pocketxl.engine.miniature.__file__).parent / "int8"
PARTS = ("text_encoder", "text_encoder_2", "base/conditioner", "base/unet", "vae_decoder")
CALL: dict[str, Any] = {
    "prompt": "a red apple", "seed": 3, "height": 64, "width": 64, "num_inference_steps": 2, "guidance_scale": 1.0,
    "output_type": "np", "refiner": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled engine with these components as programs of halves."""
    engine = tmp_path_factory.mktemp("cuda") / "engine"
    shutil.copytree(BUNDLED, engine)
    manifest = read_manifest(engine)
    components = dict(manifest.components)
    for name in PARTS:
        shutil.rmtree(engine / name)
        entry = written(miniature().components[name], FLOAT16, engine)
        size = loaded_bytes(entry.files, {}, files_of(entry.openings))
        components[name] = replace(entry, weight_bytes=size, key="", quality={"relative_error": 0.0})
    (engine / FILE_NAME).write_text(replace(manifest, components=components).to_json(), encoding="utf-8")
    return engine


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> ProgramDriver:
    return install(ProgramDriver(total=1 << 30), monkeypatch)


@pytest.mark.slow
def test_a_picture_is_float32_s_within_the_plan_and_leaves_nothing(folder: Path, driver: ProgramDriver) -> None:
    with Pipeline.load(folder, memory_budget=LEAST) as pipe:
        assert all(isinstance(pipe.runners[name], CudaRunner) for name in PARTS)
        plan = pipe.plan(**CALL)
        found = pipe(**CALL).images
        runners = dict(pipe.runners)
        for name in PARTS:
            component = miniature().components[name]
            runners[name] = TorchRunner(name=name, spec=component.spec, module=module_of(component))
        with Pipeline(pipe.models, runners, pipe.tokenizers) as truth:
            expected = truth(**CALL).images
    assert float(np.abs(found - expected).mean()) < FLOAT16_PICTURE
    net = plan.peak_bytes - plan.overhead["device"]
    assert PLAN_TAKEN_AT_LEAST * net <= driver.most <= net, (driver.most, net)
    assert not driver.memory_now
    assert not driver.pinned
