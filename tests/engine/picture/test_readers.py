"""What another program's reader, the package sd-parsers, finds in our pictures."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sd_parsers import ParserManager
from sd_parsers.data import Generators

from pocketxl.engine.folder.manifest import read_manifest
from pocketxl.engine.miniature import FOLDER
from pocketxl.engine.picture.files import SUFFIXES, write_picture
from pocketxl.engine.picture.parameters import describe
from pocketxl.engine.request.resolve import resolve
from pocketxl.engine.sampling.samplers.table import SAMPLERS, SCHEDULES

REQUESTS: list[dict[str, Any]] = [
    {"prompt": "a red apple", "refiner": False},
    {"prompt": "a (red:1.2) [apple:pear:0.5], [a|b]\nBREAK on a table", "negative_prompt": "blurry, (ugly:1.3)"},
    {"prompt": "图 café 🎉", "negative_prompt": "x", "sampler": "dpmpp_2m_sde", "schedule": "karras", "width": 192},
    {"prompt": "a {red|blue} apple", "negative_prompt": "a, {b|c}", "dynamic": True, "guidance_scale": 7.25},
    {"prompt": "x", "prompt_2": "other: words, more", "crops_coords_top_left": (3, 4), "guidance_rescale": 0.7},
]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("options", REQUESTS)
def test_it_reads_prompts_sampler_steps_seed_size_and_model(
    options: dict[str, Any], suffix: str, tmp_path: Path
) -> None:
    request = resolve({"seed": 2**64 - 1, "num_inference_steps": 33, **options}, read_manifest(FOLDER).models)
    settings = describe(request, 0, model="my engine", version="0.1.0", model_hash="0123456789")
    path = tmp_path / f"picture{suffix}"
    write_picture(path, np.zeros((8, 8, 3), np.uint8), settings)

    found = ParserManager().parse(path)
    assert found is not None
    assert found.generator is Generators.AUTOMATIC1111
    (sampler,) = found.samplers
    assert found.full_prompt == request.prompts[0].prompt.given
    negative = request.prompts[0].negative_prompt
    assert found.full_negative_prompt == ("" if negative is None else negative.given)
    assert sampler.name == SAMPLERS[request.sampler.name].label
    assert sampler.parameters["steps"] == "33"
    assert sampler.parameters["seed"] == str(2**64 - 1)
    assert float(sampler.parameters["cfg_scale"]) == request.guidance_scale
    assert sampler.parameters["scheduler"] == SCHEDULES[request.schedule]
    assert sampler.model is not None
    assert (sampler.model.name, sampler.model.hash) == ("my engine", "0123456789")
    assert found.metadata["Size"] == f"{request.width}x{request.height}"
