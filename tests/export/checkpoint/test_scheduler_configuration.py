"""A folder's scheduler: those that walk SDXL's levels are read, others are refused by name."""

from pathlib import Path

import diffusers.schedulers
import pytest

from pocketxl.engine.errors import IncompatibleError
from pocketxl.engine.sampling.levels.config import SchedulerConfig
from pocketxl.export.checkpoint.configuration import JsonFile
from pocketxl.export.checkpoint.scheduler_configuration import KNOWN, scheduler_config

from ...fixtures.schedulers import SDXL


def read(name: str | None, listed: object = None, **changes: object) -> SchedulerConfig:
    named = {"_class_name": name} if name else {}
    data = {key: value for key, value in SDXL.items() if key != "_class_name"}
    return scheduler_config(JsonFile(data={**data, **named, **changes}, path=Path("scheduler_config.json")), listed)


def test_known_classes_are_diffusers_own() -> None:
    assert set(KNOWN) <= set(dir(diffusers.schedulers))


@pytest.mark.parametrize("name", [*KNOWN, None])
def test_every_sampler_of_the_same_levels_is_read(name: str | None) -> None:
    assert read(name, ["diffusers", name]) == SchedulerConfig.of(SDXL)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("EDMEulerScheduler", "'EDMEulerScheduler', which is for EDM noise levels"),
        ("EDMDPMSolverMultistepScheduler", "EDM noise levels"),
        ("FlowMatchEulerDiscreteScheduler", "flow matching"),
        ("MyScheduler", "noise levels unknown here"),
    ],
)
def test_others_are_refused_by_name_wherever_they_are_named(name: str, says: str) -> None:
    with pytest.raises(IncompatibleError, match=says):
        read(name)
    with pytest.raises(IncompatibleError, match=says):
        read("EulerDiscreteScheduler", ["diffusers", name])


def test_velocity_and_zero_snr_are_read() -> None:
    config = read("DDIMScheduler", prediction_type="v_prediction", rescale_betas_zero_snr=True)
    assert config.prediction_type == "v_prediction"
    assert config.rescale_betas_zero_snr
    assert config.timestep_spacing == "leading"  # its own word
