"""NaN or Inf is an error that says where, never a picture; the pipeline goes on working."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketxl.engine.errors import NumericError
from pocketxl.engine.memory.plan import LEAST
from pocketxl.engine.pipeline import Pipeline
from pocketxl.engine.runners.base import Runner

from ..fixtures.watched import Poisoned, with_runners

CALL: dict[str, Any] = {
    "prompt": "a red cat", "negative_prompt": "a dog", "height": 64, "width": 64, "num_inference_steps": 6,
    "denoising_end": 0.5, "num_images_per_prompt": 2, "seed": 3, "output_type": "np",
}  # fmt: skip
CALLS_PER_STEP = 4  # two pictures, each with its negative


def poison(pipe: Pipeline, component: str, at: int, value: float) -> Pipeline:
    def wrap(runner: Runner) -> Runner:
        return Poisoned(runner, at, value) if runner.name == component else runner

    return with_runners(pipe, wrap, memory_budget=None)


def fails_once(pipe: Pipeline, match: str, **options: Any) -> None:
    call = {**CALL, **options}
    with pytest.raises(NumericError, match=match):
        pipe(**call)
    picture = pipe(**call).images  # the poison is used up
    assert np.isfinite(picture).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("component", "step", "where"),  # the base takes two of the six, the refiner four
    [
        ("base/unet", 0, "evaluation 1 of 6"),
        ("base/unet", 1, "evaluation 2 of 6"),
        ("refiner/unet", 0, "evaluation 3 of 6"),
        ("refiner/unet", 3, "evaluation 6 of 6"),
    ],
)
def test_unet(pipe: Pipeline, component: str, step: int, where: str, value: float) -> None:
    fails_once(poison(pipe, component, CALLS_PER_STEP * step + 1, value), where)


@pytest.mark.parametrize("sampler", ["heun", "dpmpp_2m", "unipc", "lcm"])
def test_samplers(pipe: Pipeline, sampler: str) -> None:
    fails_once(poison(pipe, "base/unet", CALLS_PER_STEP + 1, np.nan), f"evaluation 2 of .*{sampler}", sampler=sampler)


@pytest.mark.parametrize("output_type", ["np", "pil", "latent"])
def test_no_form_of_output_escapes(pipe: Pipeline, output_type: str) -> None:
    broken = poison(pipe, "refiner/unet", CALLS_PER_STEP * 2, np.nan)
    with pytest.raises(NumericError):
        broken(**CALL | {"output_type": output_type})


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("picture", [0, 1])
def test_vae(pipe: Pipeline, picture: int, value: float) -> None:
    fails_once(poison(pipe, "vae_decoder", picture, value), f"picture {picture}: the VAE")


@pytest.mark.parametrize("component", ["text_encoder", "text_encoder_2", "base/conditioner", "refiner/conditioner"])
def test_text(tiny_int8_engine: Path, component: str) -> None:
    # Integer kernels make numbers of NaN: further on it would not be seen.
    pipe = Pipeline.load(tiny_int8_engine, threads=1)
    fails_once(poison(pipe, component, 1, np.nan), component)


def test_components_are_released(pipe: Pipeline) -> None:
    pipe.close()
    broken = with_runners(pipe, lambda r: Poisoned(r, 2, np.nan) if r.name == "base/unet" else r, memory_budget=LEAST)
    with pytest.raises(NumericError):
        broken(**CALL)
    assert not any(runner.loaded for runner in pipe.runners.values())


def test_clipping_hides_nothing(pipe: Pipeline) -> None:
    """A checkpoint whose scheduler clips would make a number of Inf."""
    models = {k: replace(m, scheduler=replace(m.scheduler, clip_sample=True)) for k, m in pipe.models.denoisers.items()}
    clipping = Pipeline(replace(pipe.models, denoisers=models), pipe.runners, pipe.tokenizers)
    fails_once(poison(clipping, "base/unet", CALLS_PER_STEP + 1, np.inf), "evaluation 2 of 6", sampler="ddim")


def test_latents_that_a_callback_spoils(pipe: Pipeline) -> None:
    def spoil(*args: Any) -> dict[str, Any]:
        return {"latents": np.full_like(args[3]["latents"], np.nan)} if args[1] == 5 else {}

    with pytest.raises(NumericError, match="latents to go on with hold NaN"):
        pipe(**CALL | {"callback_on_step_end": spoil, "output_type": "latent"})
