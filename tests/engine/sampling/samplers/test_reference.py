"""Every sampler and schedule that diffusers has, against diffusers: base alone, and base → refiner at 0.8."""

from typing import Any

import numpy as np
import pytest

from pocketxl.engine.sampling.denoise import denoise
from pocketxl.engine.sampling.noise import BatchNoise
from pocketxl.engine.sampling.samplers.table import SAMPLERS
from pocketxl.engine.sampling.schedule import Schedule, evaluation_timesteps, split

from ....fixtures.schedulers import (
    PAIRS,
    SDXL,
    VELOCITY,
    ZERO_SNR,
    Gaussian,
    base_pipeline,
    generators,
    last_latents,
    make_scheduler,
    our_schedule,
    refiner_pipeline,
)
from ....tolerances import SAMPLER_FROM_4096, SAMPLER_RELATIVE

CONFIGS = {"epsilon": SDXL, "velocity": VELOCITY, "zero_snr": ZERO_SNR}
# Those that are diffusers' own; `test_formulas.py` has the others.
ORACLES = [name for name, row in SAMPLERS.items() if row.native]
SEEDS = (3, 1, 2)
SHAPE = (4, 4, 6)


def run(model: Gaussian, latents: np.ndarray, part: Schedule, noise: BatchNoise, eta: float = 0.0) -> np.ndarray:
    timesteps = evaluation_timesteps(part)
    return last_latents(denoise(lambda x, i: model(x, float(timesteps[i])), latents, part, noise, eta=eta))


def close(ours: np.ndarray, theirs: np.ndarray, tolerance: float) -> None:
    assert ours.dtype == np.float32
    assert np.isfinite(theirs).all()
    assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


def check(
    config: dict[str, Any], sampler: str, schedule: str, steps: dict[str, Any], *, eta: float = 0.0, cut: float = 0.8
) -> None:
    from_4096 = config is ZERO_SNR and sampler in ("euler", "euler_a", "dpmpp_sde")
    tolerance = SAMPLER_FROM_4096 if from_4096 else SAMPLER_RELATIVE
    whole = our_schedule(config, sampler, schedule, **steps)
    model, expert = Gaussian(config["prediction_type"]), Gaussian(config["prediction_type"], mean=-0.2, deviation=0.5)

    noise = BatchNoise(SEEDS)
    unit = noise.normal(SHAPE)
    ours = run(model, unit * np.float32(whole.init_noise_sigma), whole, noise, eta)
    # The starting latents are handed to both, as the pipelines take them; the streams go on behind them.
    streams = generators(SEEDS)
    drawn = np.stack([_latents(stream) for stream in streams])
    np.testing.assert_allclose(unit, drawn, atol=1e-6)
    theirs = base_pipeline(make_scheduler(sampler, schedule, config), model, unit, streams, eta=eta, **steps)
    close(ours, theirs, tolerance)

    noise = BatchNoise(SEEDS)
    noise.normal(SHAPE)
    first, second = split(whole, cut)
    handed = run(model, unit * np.float32(whole.init_noise_sigma), first, noise, eta)
    ours = run(expert, handed, second, noise, eta)
    streams = generators(SEEDS)
    for stream in streams:
        _latents(stream)
    scheduler = make_scheduler(sampler, schedule, config)
    theirs_handed = base_pipeline(scheduler, model, unit, streams, denoising_end=cut, eta=eta, **steps)
    close(handed, theirs_handed, tolerance)
    scheduler = make_scheduler(sampler, schedule, config)
    theirs = refiner_pipeline(scheduler, expert, theirs_handed, streams, denoising_start=cut, eta=eta, **steps)
    close(ours, theirs, tolerance)


def _latents(stream: Any) -> np.ndarray:
    import torch

    return torch.randn(SHAPE, generator=stream).numpy()


@pytest.mark.parametrize("steps", [1, 2, 5, 20, 50])
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize(("sampler", "schedule"), PAIRS)
def test_equals_diffusers(sampler: str, schedule: str, config: str, steps: int) -> None:
    if sampler == "heun" and config == "zero_snr":
        pytest.skip("diffusers' heun has no zero SNR; its second slope at sigma 4096 is rounding error in float32")
    check(CONFIGS[config], sampler, schedule, {"num_inference_steps": steps})


@pytest.mark.parametrize("eta", [0.3, 1.0])
@pytest.mark.parametrize("config", CONFIGS)
def test_ddim_with_eta(config: str, eta: float) -> None:
    check(CONFIGS[config], "ddim", "default", {"num_inference_steps": 12}, eta=eta)


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
@pytest.mark.parametrize("eta", [0.3, 0.5, 1.0])
@pytest.mark.parametrize("config", CONFIGS)
def test_tcd_with_eta(config: str, eta: float, steps: int) -> None:
    check(CONFIGS[config], "tcd", "default", {"num_inference_steps": steps}, eta=eta, cut=0.6)


@pytest.mark.parametrize("sampler", ORACLES)
@pytest.mark.parametrize("cut", [0.01, 0.3, 0.5, 0.77, 0.97, 0.999])
def test_cut_anywhere(sampler: str, cut: float) -> None:
    check(SDXL, sampler, "default", {"num_inference_steps": 9}, cut=cut)


@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
@pytest.mark.parametrize("sampler", ORACLES)
def test_every_spacing(sampler: str, spacing: str) -> None:
    check({**SDXL, "timestep_spacing": spacing, "steps_offset": 0}, sampler, "default", {"num_inference_steps": 7})


@pytest.mark.parametrize("steps", [6, 7, 20])
@pytest.mark.parametrize("schedule", ["default", "karras", "exponential"])
@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "dpmpp_2m_sde", "unipc"])
def test_ending_above_zero(sampler: str, schedule: str, steps: int) -> None:
    check({**SDXL, "final_sigmas_type": "sigma_min"}, sampler, schedule, {"num_inference_steps": steps})


@pytest.mark.parametrize("sampler", ["heun", "ddim", "lcm", "ddpm", "tcd"])
def test_clip_sample(sampler: str) -> None:
    config = {**SDXL, "clip_sample": True, "clip_sample_range": 0.8}
    check(config, sampler, "default", {"num_inference_steps": 8})


@pytest.mark.parametrize("sampler", ORACLES)
def test_a_config_that_says_nothing(sampler: str) -> None:
    check({"prediction_type": "epsilon"}, sampler, "default", {"num_inference_steps": 6})


@pytest.mark.parametrize("beta_schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_beta_schedules(beta_schedule: str) -> None:
    config = {**VELOCITY, "beta_schedule": beta_schedule}
    check(config, "ddim", "default", {"num_inference_steps": 6})
    check(config, "dpmpp_2m", "default", {"num_inference_steps": 6})


TIMESTEPS = [999, 850, 736, 645, 545, 455, 343, 233, 124, 24]
SIGMAS = [14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.38, 0.234, 0.113, 0.0]


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m", "dpmpp_2m_sde", "lcm", "ddpm", "tcd"])
def test_custom_timesteps(sampler: str) -> None:
    check(SDXL, sampler, "default", {"timesteps": TIMESTEPS})


@pytest.mark.parametrize("sigmas", [SIGMAS, SIGMAS[:-1]])
def test_custom_sigmas(sigmas: list[float]) -> None:
    check(SDXL, "euler", "default", {"sigmas": sigmas})
