"""The trained noise levels equal diffusers'."""

from typing import Any

import numpy as np
import pytest

from pocketxl.engine.sampling.levels.config import SchedulerConfig
from pocketxl.engine.sampling.levels.settings import SchedulerSettings
from pocketxl.engine.sampling.levels.trained import alphas_cumprod

from ....fixtures.schedulers import SDXL, ZERO_SNR, make_scheduler
from ....tolerances import SIGMA_RELATIVE_RESCALED

BETAS = np.linspace(0.001, 0.02, 1000).tolist()


def settings_of(config: dict[str, Any]) -> SchedulerSettings:
    return SchedulerConfig.of(config).filled(SchedulerSettings())


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"beta_schedule": "linear"},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"trained_betas": BETAS},
        {"num_train_timesteps": 400},
        {"num_train_timesteps": 7, "beta_start": 0.1, "beta_end": 0.9},
        {"num_train_timesteps": 2},
    ],
)
def test_equals_diffusers(change: dict[str, object]) -> None:
    config = {**SDXL, **change}
    expected = make_scheduler("ddim", "default", config).alphas_cumprod.numpy()
    np.testing.assert_allclose(alphas_cumprod(settings_of(config), keep_zero=True), expected, rtol=1e-7, atol=0)


@pytest.mark.parametrize(("sampler", "last"), [("ddim", 0.0), ("euler", 2**-24)])
def test_zero_terminal_snr(sampler: str, last: float) -> None:
    kept = alphas_cumprod(settings_of(ZERO_SNR), keep_zero=sampler == "ddim")
    expected = make_scheduler(sampler, "default", ZERO_SNR).alphas_cumprod.numpy()
    assert kept[-1] == last
    np.testing.assert_allclose(kept, expected, rtol=SIGMA_RELATIVE_RESCALED, atol=1e-9)
