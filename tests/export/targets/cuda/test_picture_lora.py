"""A picture of the trained miniature with a LoRA, its U-Net in 8 bits on a GPU that interprets our kernels' own source.

As a build of recipe `int8` has the U-Net: attention and GEGLU write int8 in steps of channels that were calibrated, so
that a pair behind them multiplies numbers which nothing but the slot's weight of inverse steps gives a size.
"""

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
from pocketxl.engine.pipeline import Pipeline
from pocketxl.engine.program.read import PROGRAM_FILE, read_program
from pocketxl.engine.program.slots import SLOTS_FILE, read_slots
from pocketxl.engine.runners.cuda import CudaRunner
from pocketxl.export.quantize.calibration import Calibration
from pocketxl.export.quantize.formats import FLOAT16, Format
from pocketxl.export.quantize.quantization import Quantization
from pocketxl.export.reference.calibrate import ROWS, watch
from pocketxl.export.reference.parity import psnr_db
from pocketxl.export.reference.run import ReferenceRunner
from pocketxl.export.reference.streamed import StreamedModule

from ....fixtures.cuda_programs import ProgramDriver, install
from ....tolerances import INT8_LORA_PICTURE_DB, LORA_PICTURE_DB
from .calibrated import calibrated, layers_with
from .interpreted import written
from .lowering import miniature, module_of

MINIATURE = Path(pocketxl.engine.miniature.__file__).parent
BUNDLED, LORA = MINIATURE / "int8", MINIATURE / "loras" / "blueprint.safetensors"
UNET, CONDITIONER = "base/unet", "base/conditioner"
CALL: dict[str, Any] = {
    "seed": 3, "height": 64, "width": 64, "timesteps": [800], "guidance_scale": 1.0, "output_type": "np",
    "refiner": False,
}  # fmt: skip
"""One step from high noise to the picture, which shows a style as well as many; one of the last shows none."""
PROMPT = "a red apple"
CALIBRATED_AT = [900, 400]
CALIBRATION = ("a red apple on an orange background", "a green tree")


@pytest.fixture(scope="module")
def numbers() -> Quantization:
    """The U-Net's, by what its layers show while it makes pictures without a LoRA."""
    component = miniature().components[UNET]
    module = StreamedModule(component.module, component.spec, component.weights)
    with Pipeline.load(BUNDLED) as pipe, watch(module, ROWS // (len(CALIBRATION) * len(CALIBRATED_AT))) as seen:
        runner = ReferenceRunner(name=UNET, spec=component.spec, module=module, expected_rows=1, watch=seen)
        # Not the bundled one: keys and values are there in other units, by which U-Net and conditioner were smoothed.
        beside = miniature().components[CONDITIONER]
        conditioner = TorchRunner(name=CONDITIONER, spec=beside.spec, module=module_of(beside))
        runners = {**pipe.runners, UNET: runner, CONDITIONER: conditioner}
        runs = []
        with Pipeline(pipe.models, runners, pipe.tokenizers) as watched:
            for i, prompt in enumerate(CALIBRATION):
                watched(prompt, **{**CALL, "timesteps": CALIBRATED_AT, "seed": i})
                runs.append(runner.take())
    return calibrated(module.module, component.configuration, component.weights, Calibration.of_runs(runs))


@pytest.fixture(scope="module")
def folder(numbers: Quantization, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled engine with its U-Net as that program, and its conditioner, which has pairs too, as one of halves."""
    engine = tmp_path_factory.mktemp("cuda") / "engine"
    shutil.copytree(BUNDLED, engine)
    manifest = read_manifest(engine)
    components = dict(manifest.components)
    own: dict[str, Format | Quantization] = {UNET: numbers, CONDITIONER: FLOAT16}
    for name, formats in own.items():
        shutil.rmtree(engine / name)
        entry = written(miniature().components[name], formats, engine, pairs=True)
        size = loaded_bytes(entry.files, {}, files_of(entry.openings))
        components[name] = replace(entry, weight_bytes=size, key="", quality={"relative_error": 0.0})
    (engine / FILE_NAME).write_text(replace(manifest, components=components).to_json(), encoding="utf-8")
    return engine


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> ProgramDriver:
    return install(ProgramDriver(total=1 << 30), monkeypatch)


@pytest.mark.slow
def test_a_picture_with_a_lora_is_the_processor_s(folder: Path, numbers: Quantization, driver: ProgramDriver) -> None:
    static, scores = layers_with(numbers)
    assert static
    assert scores
    slots = read_slots(folder / UNET / SLOTS_FILE, read_program(folder / UNET / PROGRAM_FILE))
    assert sum(slot.inverse is not None for slot in slots) == static
    with Pipeline.load(BUNDLED) as host:
        expected, plain = (host(PROMPT, **CALL, loras=loras).images for loras in ({str(LORA): 1.0}, {}))
    with Pipeline.load(folder) as pipe:
        assert all(isinstance(pipe.runners[name], CudaRunner) for name in (UNET, CONDITIONER))
        found = pipe(PROMPT, **CALL, loras={str(LORA): 1.0}).images
    assert "attention.attention_int8_kernel" in driver.launched
    assert db(plain, expected) < LORA_PICTURE_DB, "it changes the picture"
    assert db(found, expected) > INT8_LORA_PICTURE_DB, db(found, expected)


def db(found: np.ndarray, expected: np.ndarray) -> float:
    return psnr_db(float(np.square(found - expected, dtype=np.float64).mean()), 1.0)
