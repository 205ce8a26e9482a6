"""Base and refiner on the GPU at hand, from a checkpoint to pictures. Marked `gpu`: not run yet."""

from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from pocketxl.engine import Pipeline, check_engine
from pocketxl.engine.doctor.machine import Gpu, gpu
from pocketxl.engine.memory.plan import LEAST

from ..tolerances import FLOAT16_PICTURE, TENSORRT_FP16_RELATIVE
from .test_pipeline_device import CALL

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def engine(tiny_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pocketxl.export.build import build
    from pocketxl.export.quantize.recipes import RECIPES

    card = gpu()
    if isinstance(card, str):
        pytest.skip(card)
    free = replace(  # random weights; how good a recipe is on them is not asked here
        RECIPES["fp16"], min_psnr_db=0.0, max_relative_error=dict.fromkeys(RECIPES["fp16"].max_relative_error, 1.0)
    )
    assert isinstance(card, Gpu)
    folder = tmp_path_factory.mktemp("card") / "engine"
    with patch.dict(RECIPES, fp16=free):
        build(tiny_folders["base"], folder, refiner=tiny_folders["refiner"], target=card.target, recipe="fp16")
    return folder


def test_every_component_is_close_to_the_reference_and_says_what_it_takes(engine: Path) -> None:
    for found in check_engine(engine):
        assert found.relative_error < TENSORRT_FP16_RELATIVE, found
        assert found.device_bytes


def test_the_picture_is_the_processor_s_whatever_is_swapped(engine: Path, pipe: Pipeline) -> None:
    expected = pipe(**CALL).images
    for budget in (None, LEAST):
        with Pipeline.load(engine, memory_budget=budget) as card:
            for _ in range(2):
                assert np.abs(card(**CALL).images - expected).mean() < FLOAT16_PICTURE
            device = next(iter(card.runners.values())).device
            assert device.in_use
            assert device.room
