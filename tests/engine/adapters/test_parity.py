"""Whole pictures with LoRAs against diffusers with peft: the same weights, pairs, starting latents and noise."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketxl.engine.pipeline import Pipeline

from ...fixtures.experts import Experts
from ...fixtures.loras import ATTENTION, CLIP, CONV, LINEAR, TIME, adapted, known, mean_difference
from ...tolerances import PICTURE_MEAN

OPTIONS: dict[str, Any] = {
    "prompt": "a red cat",
    "negative_prompt": "a blue dog",
    "height": 64,
    "width": 64,
    "num_inference_steps": 6,
    "guidance_scale": 5.0,
    "seed": [11],
    "latents": np.random.default_rng(17).standard_normal((1, 4, 8, 8), dtype=np.float32),
    "denoising_end": 0.8,
    "output_type": "np",
}


@pytest.fixture
def experts(tiny_folders: dict[str, Path]) -> Experts:
    """Ones of our own: LoRAs go into them."""
    return Experts(tiny_folders)


CASES: dict[str, list[dict[str, tuple[str, ...]]]] = {
    "attention of the base": [{"base/unet": ATTENTION}],
    "attention of the refiner": [{"refiner/unet": ATTENTION}],
    "every linear layer of a transformer": [{"base/unet": LINEAR}],
    "convolutions": [{"base/unet": CONV}],
    "edges and time": [{"base/unet": TIME}],
    "text encoders": [{"text_encoder": CLIP, "text_encoder_2": CLIP}],
    "several at once": [
        {"base/unet": (*LINEAR, *CONV), "text_encoder_2": CLIP},
        {"base/unet": ATTENTION, "refiner/unet": (*LINEAR, *CONV)},
    ],
}
WEIGHTS = (0.8, -0.6)


@pytest.mark.parametrize("case", CASES)
def test_equals_diffusers(pipe: Pipeline, experts: Experts, case: str, tmp_path: Path) -> None:
    experts.refiner.text_encoder_2 = experts.base.text_encoder_2  # as diffusers' documentation has it, and engines
    modules = {
        "base/unet": experts.base.unet,
        "refiner/unet": experts.refiner.unet,
        "text_encoder": experts.base.text_encoder,
        "text_encoder_2": experts.base.text_encoder_2,
    }
    plain = pipe(**OPTIONS).images
    with ExitStack() as stack:
        loras = [
            stack.enter_context(
                adapted(
                    {name: (modules[name], targets) for name, targets in targeted.items()},
                    f"lora{turn}",
                    rank=4 + 3 * turn,
                    weight=WEIGHTS[turn],
                    seed=turn,
                )
            )
            for turn, targeted in enumerate(CASES[case])
        ]
        theirs = experts(**OPTIONS, refiner=True)
        files = stack.enter_context(known(pipe, tmp_path, loras))
        ours = pipe(**OPTIONS, loras=dict(zip(files, WEIGHTS, strict=False))).images
    assert mean_difference(ours, theirs) <= PICTURE_MEAN
    assert mean_difference(plain, theirs) > 100 * PICTURE_MEAN  # what they would differ by without the LoRA
    assert np.array_equal(plain, pipe(**OPTIONS).images)  # and nothing of it is left behind
