"""A base that is told the guidance scale (LCM): diffusers' pictures, without a negative side; a refiner has one."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketxl.engine.errors import RequestError
from pocketxl.engine.pipeline import Pipeline
from pocketxl.engine.preparation import Prepared
from pocketxl.export.build import build

from ..fixtures.checkpoints import randomize, tiny_unet
from ..fixtures.experts import Experts
from ..tolerances import PICTURE_CHANGE, PICTURE_MEAN

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' schedulers


@pytest.fixture(scope="module")
def folders(tiny_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("distilled") / "base"
    shutil.copytree(tiny_folders["base"], base)
    unet = tiny_unet("base", time_cond_proj_dim=32)
    randomize(unet, seed=3)
    unet.save_pretrained(base / "unet")
    return {"base": base, "refiner": tiny_folders["refiner"]}


@pytest.fixture(scope="module")
def pipe(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    engine = tmp_path_factory.mktemp("engine") / "fp32"
    build(folders["base"], engine, refiner=folders["refiner"], recipe="fp32", calibration_size=32)
    return Pipeline.load(engine, threads=1)


@pytest.mark.parametrize("refiner", [False, True], ids=["base", "refiner"])
@pytest.mark.parametrize("sampler", ["lcm", "euler"])
def test_equals_diffusers(pipe: Pipeline, folders: dict[str, Path], sampler: str, refiner: bool) -> None:
    options: dict[str, Any] = {
        "prompt": "a red cat",
        "negative_prompt": "blue sky",
        "num_inference_steps": 6,
        "guidance_scale": 7.3,
        "sampler": sampler,
        "height": 64,
        "width": 64,
        "seed": [3],
        "latents": np.random.default_rng(1).standard_normal((1, 4, 8, 8), dtype=np.float32),
        "denoising_end": 0.8 if refiner else None,
        "refiner": refiner,
        "output_type": "np",
    }
    ours = pipe(**options).images
    assert np.abs(ours - Experts(folders)(**options)).mean() <= PICTURE_MEAN
    assert np.abs(ours - pipe(**options | {"guidance_scale": 2.0}).images).mean() > PICTURE_CHANGE


def test_it_has_one_side_only_and_the_plan_knows(pipe: Pipeline) -> None:
    request = pipe.request("a red cat", negative_prompt="blue sky", refiner=False, height=64, width=64)
    embeddings = pipe.encode(request)
    assert [negative for _, negative in embeddings["base"]] == [None]
    with pytest.raises(RequestError, match="without negatives"):
        next(pipe.sample(request, {"base": [(embeddings["base"][0][0],) * 2]}))
    for refiner in (False, True):  # the plan counts rows: two where any model has a negative side
        asked = pipe.request("a red cat", refiner=refiner)
        assert Prepared.of(asked, pipe.models, pipe.tokenizers).workload.guidance is refiner
