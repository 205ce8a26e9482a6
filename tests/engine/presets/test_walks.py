"""Presets for distilled models walk the timesteps which the scheduler that their authors name walks in diffusers."""

from typing import Any

import diffusers
import numpy as np
import pytest

from pocketxl.engine.presets.table import PRESETS
from pocketxl.engine.sampling.noise import BatchNoise
from pocketxl.engine.sampling.schedule import Schedule

from ...fixtures.schedulers import SDXL, Gaussian, base_pipeline, generators, last_latents, our_schedule
from ...tolerances import SAMPLER_RELATIVE

TRAILING = {"timestep_spacing": "trailing"}
# Preset → scheduler, its settings, what `set_timesteps` is given: as in the model cards' examples.
AUTHORS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "lcm": ("LCMScheduler", {}, {"num_inference_steps": 4}),
    "lcm-lora": ("LCMScheduler", {}, {"num_inference_steps": 4}),
    "turbo": ("EulerAncestralDiscreteScheduler", TRAILING, {"num_inference_steps": 1}),
    "lightning-2": ("EulerDiscreteScheduler", TRAILING, {"num_inference_steps": 2}),
    "lightning-4": ("EulerDiscreteScheduler", TRAILING, {"num_inference_steps": 4}),
    "lightning-8": ("EulerDiscreteScheduler", TRAILING, {"num_inference_steps": 8}),
    "hyper-1": ("LCMScheduler", {}, {"timesteps": [800]}),
    "hyper-2": ("DDIMScheduler", TRAILING, {"num_inference_steps": 2}),
    "hyper-4": ("DDIMScheduler", TRAILING, {"num_inference_steps": 4}),
    "hyper-8": ("DDIMScheduler", TRAILING, {"num_inference_steps": 8}),
    "hyper-unified": ("TCDScheduler", {}, {"num_inference_steps": 1}),
    "dmd2": ("LCMScheduler", {}, {"timesteps": [999, 749, 499, 249]}),
    "dmd2-1": ("LCMScheduler", {}, {"timesteps": [399]}),
    "tcd": ("TCDScheduler", {}, {"num_inference_steps": 4}),
}
DISTILLED = [name for name, row in PRESETS.items() if row.source]


def of_preset(name: str) -> Schedule:
    row = PRESETS[name]
    steps: dict[str, Any] = (
        {"num_inference_steps": row.num_inference_steps} if row.timesteps is None else {"timesteps": row.timesteps}
    )
    return our_schedule(SDXL, row.sampler, row.schedule or "default", **steps)


def authors(name: str) -> Any:
    kind, settings, _ = AUTHORS[name]
    return getattr(diffusers, kind).from_config(SDXL, **settings)


def test_every_distilled_preset_has_its_scheduler() -> None:
    assert set(DISTILLED) == set(AUTHORS)


@pytest.mark.parametrize("name", DISTILLED)
def test_the_timesteps_are_the_authors(name: str) -> None:
    theirs = authors(name)
    theirs.set_timesteps(**AUTHORS[name][2])
    ours = of_preset(name)
    assert list(ours.timesteps) == theirs.timesteps.tolist()
    assert ours.steps == PRESETS[name].num_inference_steps


@pytest.mark.parametrize("name", DISTILLED)
def test_the_latents_are_the_authors(name: str) -> None:
    from pocketxl.engine.sampling.denoise import denoise

    row, plan, model = PRESETS[name], of_preset(name), Gaussian()
    noise = BatchNoise([5])
    unit = noise.normal((4, 4, 4))
    ours = last_latents(
        denoise(
            lambda x, i: model(x, plan.timesteps[i]),
            unit * np.float32(plan.init_noise_sigma),
            plan,
            noise,
            eta=row.eta or 0.0,
        )
    )
    streams = generators([5])
    import torch

    torch.randn((4, 4, 4), generator=streams[0])
    theirs = base_pipeline(authors(name), model, unit, streams, eta=row.eta or 0.0, **AUTHORS[name][2])
    assert np.abs(ours - theirs).max() <= SAMPLER_RELATIVE * np.abs(theirs).max()
