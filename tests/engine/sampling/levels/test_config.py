"""A scheduler config is checked when it is read: types, bounds, and what is not supported."""

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from diffusers import EulerDiscreteScheduler, LCMScheduler

from pocketxl.engine.errors import IncompatibleError
from pocketxl.engine.folder.schema import decode, encode
from pocketxl.engine.sampling.levels.config import BOUNDS, SchedulerConfig
from pocketxl.engine.sampling.levels.settings import PredictionType, SchedulerSettings, TimestepSpacing

from ....fixtures.schedulers import CLASSES, SDXL, make_scheduler

FULL: dict[str, Any] = {
    **SDXL,
    "trained_betas": [0.5, 0, 1.0],
    "num_train_timesteps": 3,
    "rescale_betas_zero_snr": True,
    "final_sigmas_type": "sigma_min",
    "clip_sample_range": 2,
    "use_exponential_sigmas": True,
    "sigma_min": 0.1,
    "sigma_max": 10,
    "original_inference_steps": 4,
    "timestep_scaling": 7,
}


def test_every_entry_of_a_config_is_read() -> None:
    config = SchedulerConfig.of(FULL)
    for field in fields(SchedulerConfig):
        value = getattr(config, field.name)
        assert value == (tuple(FULL[field.name]) if field.name == "trained_betas" else FULL[field.name]), field.name
        assert not isinstance(value, int) or isinstance(FULL[field.name], type(value))  # 10 became 10.0
    assert [field.name for field in fields(SchedulerSettings)] == [field.name for field in fields(SchedulerConfig)]


@pytest.mark.parametrize("config", [{}, SDXL, FULL])
def test_goes_through_engine_json(config: dict[str, Any]) -> None:
    read = SchedulerConfig.of(config)
    assert decode(SchedulerConfig, json.loads(json.dumps(encode(read))), "scheduler") == read


def test_what_is_left_out_is_the_samplers_own() -> None:
    config = SchedulerConfig.of({"beta_start": 0.002, "timestep_spacing": None})
    filled = config.filled(SchedulerSettings(beta_start=0.5, beta_end=0.3, timestep_spacing=TimestepSpacing.TRAILING))
    assert (filled.beta_start, filled.beta_end, filled.timestep_spacing) == (0.002, 0.3, "trailing")


def test_what_was_only_a_default_is_left_out() -> None:
    config = SchedulerConfig.of({**SDXL, "_use_default_values": ["timestep_spacing", "steps_offset"]})
    assert config == replace(SchedulerConfig.of(SDXL), timestep_spacing=None, steps_offset=None)


@pytest.mark.parametrize("sampler", CLASSES)
def test_what_diffusers_writes_is_taken(sampler: str) -> None:
    written = json.loads(make_scheduler(sampler, "default", SDXL).to_json_string())
    assert SchedulerConfig.of(written).prediction_type is PredictionType.EPSILON
    assert SchedulerConfig.of(json.loads(LCMScheduler().to_json_string())).original_inference_steps == 50


def test_diffusers_defaults_are_ours() -> None:
    made = SchedulerConfig.of({k: v for k, v in EulerDiscreteScheduler().config.items() if k[0] != "_"})
    assert made.filled(SchedulerSettings()) == SchedulerSettings()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("prediction_type", "sample"),
        ("prediction_type", "flow_prediction"),
        ("beta_schedule", "laplace"),
        ("beta_schedule", ["linear"]),
        ("timestep_spacing", "quadratic"),
        ("thresholding", True),
        ("timestep_type", "continuous"),
        ("use_flow_sigmas", True),
        ("use_beta_sigmas", True),
        ("use_lu_lambdas", True),
        ("lambda_min_clipped", -5.1),
        ("final_sigmas_type", "one"),
        ("interpolation_type", "log_linear"),
        ("trained_betas", [0.1, 0.2]),
        ("trained_betas", [2.0] * 1000),
        ("trained_betas", [float("nan")] * 1000),
        ("trained_betas", ["0.1"] * 1000),
        ("trained_betas", 0.1),
        ("num_train_timesteps", 10**9),
        ("num_train_timesteps", 1),
        ("num_train_timesteps", 1000.0),
        ("num_train_timesteps", True),
        ("num_train_timesteps", "1000"),
        ("beta_start", 0),
        ("beta_start", float("nan")),
        ("beta_end", 1.0),
        ("beta_end", float("inf")),
        ("beta_end", 10**400),
        ("beta_end", "0.01"),
        ("steps_offset", -1),
        ("steps_offset", 1000),
        ("steps_offset", 0.5),
        ("clip_sample", 1),
        ("rescale_betas_zero_snr", "true"),
        ("clip_sample_range", 0),
        ("sigma_min", -1),
        ("sigma_min", 10),
        ("original_inference_steps", 0),
        ("timestep_scaling", float("inf")),
        ("_use_default_values", 5),
    ],
)
def test_what_is_refused_is_named(key: str, value: object) -> None:
    with pytest.raises(IncompatibleError, match=rf"has {key} .*; it must be .*scheduler_config\.json"):
        SchedulerConfig.of({**SDXL, "sigma_max": 5, key: value})


@pytest.mark.parametrize("name", BOUNDS)
def test_bounds_hold_however_it_is_made(name: str) -> None:
    with pytest.raises(IncompatibleError, match=name):
        replace(SchedulerConfig(), **{name: type(getattr(SchedulerConfig.of(FULL), name))(-1)})
