"""The same seed makes the same picture with any number of threads, so on any number of cores."""

from pathlib import Path

import numpy as np
import pytest

from pocketxl.engine import Pipeline
from pocketxl.engine.miniature import engine_folder
from pocketxl.export import miniature
from pocketxl.export.build import build

CHECKPOINTS = Path(next(iter(miniature.__path__))) / "weights"


@pytest.fixture(scope="module", params=["int8", "int8-weight", "fp32"])
def engine(request: pytest.FixtureRequest, tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for each recipe; of the quantized ones the miniature, whose layers are long enough to be summed in parts."""
    if request.param == "int8":
        return engine_folder(None)
    if request.param == "fp32":
        return tiny_engine
    folder = tmp_path_factory.mktemp("engines") / "int8-weight"
    build(CHECKPOINTS / "base", folder, refiner=CHECKPOINTS / "refiner", recipe="int8-weight", calibration_size=32)
    return folder


@pytest.mark.parametrize("prompt", ["a large sunflower on a black background", "an owl " * 60])
def test_a_picture_does_not_depend_on_the_number_of_threads(engine: Path, prompt: str) -> None:
    # Convolutions with dequantized weights share pixels, and need enough of them (`targets/cpu/weight_only.py`).
    side = 256 if engine.name == "int8-weight" else 128

    def picture(threads: int) -> np.ndarray:
        with Pipeline.load(engine, threads=threads) as pipe:
            images: np.ndarray = pipe(
                prompt, seed=3, num_inference_steps=2, width=side, height=side, output_type="np"
            ).images
        return images

    alone = picture(1)
    for threads in (2, 3, 4, 6):
        assert np.array_equal(picture(threads), alone), threads
