"""What a single file says of its noise is taken at its word, or refused; never passed over."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler

from pocketxl.engine.errors import IncompatibleError, RequestError
from pocketxl.engine.progress import Silent
from pocketxl.engine.sampling.levels.config import SchedulerConfig
from pocketxl.engine.sampling.levels.settings import PredictionType
from pocketxl.engine.sampling.samplers.table import SAMPLERS
from pocketxl.engine.sampling.schedule import make_schedule
from pocketxl.engine.stored.header import Header, StoredTensor
from pocketxl.export.build import build
from pocketxl.export.checkpoint.marks import Noise, noise_of
from pocketxl.export.checkpoint.open import open_checkpoint
from pocketxl.export.checkpoint.settings import BUNDLED, read_settings
from pocketxl.export.job import open_as, prepare
from pocketxl.export.quantize.recipes import RECIPES
from pocketxl.export.targets import find_target

from ...fixtures.command_line import run
from ...fixtures.original_layout import write_single_file
from ...fixtures.schedulers import SDXL
from ...tolerances import SIGMA_RELATIVE_RESCALED

EPSILON, V = PredictionType.EPSILON, PredictionType.V_PREDICTION
FILE = Path("model.safetensors")


def header(*tensors: str, **notes: str) -> Header:
    """A file with those empty tensors; `__` in the name of a note stands for a dot."""
    empty = StoredTensor(path=FILE, dtype="float16", shape=(0,), offset=0, itemsize=2)
    metadata = {name.replace("__", "."): said for name, said in notes.items()}
    return Header(tensors=dict.fromkeys(tensors, empty), metadata=metadata)


def said(*tensors: str, **notes: str) -> Noise:
    return noise_of(header(*tensors, **notes), FILE, Noise(), None)


@pytest.mark.parametrize(
    ("tensors", "notes", "prediction", "zero_snr"),
    [
        ((), {}, None, None),
        (("v_pred",), {}, V, None),
        (("v_pred", "ztsnr"), {}, V, True),
        ((), {"modelspec__prediction_type": "v"}, V, None),
        ((), {"modelspec__prediction_type": "V-Prediction"}, V, None),
        ((), {"modelspec__prediction_type": "epsilon"}, EPSILON, None),
        ((), {"modelspec__prediction_type": "eps"}, EPSILON, None),
        ((), {"modelspec__prediction_type": "None"}, None, None),
        ((), {"modelspec__predict_key": "v"}, V, None),
        ((), {"ss_v_parameterization": "True"}, V, None),
        ((), {"ss_v_parameterization": "False"}, EPSILON, None),
        ((), {"ss_v_parameterization": "None"}, None, None),
        ((), {"ss_v_parameterization": "True", "ss_zero_terminal_snr": "True"}, V, True),
        ((), {"ss_zero_terminal_snr": "False"}, None, False),
        (("v_pred",), {"modelspec__prediction_type": "v"}, V, None),
        ((), {"modelspec__architecture": "stable-diffusion-xl-v1-base"}, None, None),
        ((), {"ss_base_model_version": "sdxl_base_v1-0"}, None, None),
    ],
)
def test_marks(tensors: tuple[str, ...], notes: dict[str, str], prediction: Any, zero_snr: bool | None) -> None:
    assert said(*tensors, **notes) == Noise(prediction_type=prediction, zero_snr=zero_snr)


@pytest.mark.parametrize(
    ("tensors", "notes", "says"),
    [
        (
            ("v_pred",),
            {"modelspec__prediction_type": "epsilon"},
            r"the tensor v_pred says v_prediction and the metadata modelspec.prediction_type 'epsilon' says epsilon; "
            ".* --prediction-type",
        ),
        (("v_pred",), {"ss_v_parameterization": "False"}, "contradicts itself"),
        ((), {"modelspec__prediction_type": "v", "modelspec__predict_key": "epsilon"}, "contradicts itself"),
        (("ztsnr",), {"ss_zero_terminal_snr": "False"}, "no zero terminal SNR.*--no-zero-snr"),
        (
            (),
            {"modelspec__prediction_type": "rectified flow"},
            "'rectified flow', but epsilon and v.*--prediction-type",
        ),
        ((), {"modelspec__prediction_type": "edm"}, "'edm', but epsilon and v"),
        ((), {"ss_v_parameterization": "maybe"}, "'maybe', but True and False"),
        (
            (),
            {"modelspec__architecture": "stable-diffusion-v2-768-v"},
            "those of an SDXL base.*--prediction-type",
        ),
        ((), {"ss_base_model_version": "sd_v1"}, "its tensors are those of an SDXL base"),
    ],
)
def test_unknown_and_contradicting_marks_are_refused(
    tensors: tuple[str, ...], notes: dict[str, str], says: str
) -> None:
    with pytest.raises(IncompatibleError, match=says):
        said(*tensors, **notes)
    asked = Noise(prediction_type=EPSILON, zero_snr=False)
    assert noise_of(header(*tensors, **notes), FILE, asked, None) == asked


def test_a_given_scheduler_config_is_a_mark_where_it_says_more_than_the_public_one() -> None:
    usual = SchedulerConfig.of(SDXL)
    velocity = SchedulerConfig.of({**SDXL, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True})
    assert noise_of(header("v_pred"), FILE, Noise(), usual).prediction_type is V
    assert noise_of(header(), FILE, Noise(), velocity) == Noise(prediction_type=V, zero_snr=True)
    with pytest.raises(IncompatibleError, match="--config says v_prediction"):
        noise_of(header(modelspec__prediction_type="epsilon"), FILE, Noise(), velocity)


def test_marks_of_a_file_reach_the_checkpoint(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    base = tiny_folders["base"]
    plain = write_single_file(base, tmp_path / "plain.safetensors")
    noted = write_single_file(base, tmp_path / "noted.safetensors", metadata={"modelspec.prediction_type": "v"})
    marks = {"v_pred": torch.empty(0), "ztsnr": torch.empty(0)}
    marked = write_single_file(base, tmp_path / "marked.safetensors", extra=marks)
    assert open_checkpoint(plain, config=base).scheduler_config.prediction_type == EPSILON
    assert open_checkpoint(noted, config=base).scheduler_config.prediction_type == V
    assert open_checkpoint(marked, config=base).scheduler_config.rescale_betas_zero_snr
    asked = Noise(prediction_type=EPSILON, zero_snr=False)
    over = open_checkpoint(marked, config=base, noise=asked).scheduler_config
    assert (over.prediction_type, over.rescale_betas_zero_snr) == (EPSILON, False)
    assert open_checkpoint(base, noise=Noise(prediction_type=V)).scheduler_config.prediction_type == V


@pytest.mark.parametrize("name", ["edm_vpred.sigma_max", "edm_vpred.sigma_min", "edm_mean", "edm_std"])
def test_marks_of_other_noise_levels_are_refused_whatever_is_asked_for(
    tiny_folders: dict[str, Path], tmp_path: Path, name: str
) -> None:
    base = tiny_folders["base"]
    extra = {name: torch.tensor(80.0), "v_pred": torch.empty(0)}
    file = write_single_file(base, tmp_path / "edm.safetensors", extra=extra)
    with pytest.raises(IncompatibleError, match=r"CosXL|Playground"):
        open_checkpoint(file, config=base, noise=Noise(prediction_type=V))


def test_zero_snr_visits_the_last_trained_timestep() -> None:
    """As diffusers does with `trailing`; with `leading`, 30 steps begin at 958."""
    config = Noise(prediction_type=V, zero_snr=True).applied(read_settings(BUNDLED / "base").scheduler_config)
    schedule = make_schedule(config, sampler=SAMPLERS["euler"], num_inference_steps=30)
    theirs = EulerDiscreteScheduler.from_config(
        {**SDXL, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    )
    theirs.set_timesteps(30)
    assert schedule.timesteps[0] == 999
    assert schedule.sigmas[0] == pytest.approx(4096, rel=SIGMA_RELATIVE_RESCALED)
    np.testing.assert_array_equal(schedule.timesteps, theirs.timesteps.numpy())


def test_a_folder_that_has_zero_snr_keeps_its_spacing() -> None:
    config = SchedulerConfig.of({**SDXL, "rescale_betas_zero_snr": True})
    assert Noise(zero_snr=True).applied(config) == config
    assert Noise(zero_snr=False).applied(config) == SchedulerConfig.of({**SDXL, "rescale_betas_zero_snr": False})


def test_what_is_asked_for_is_part_of_the_build_key(tiny_folders: dict[str, Path]) -> None:
    keys = {
        prepare(
            open_as(tiny_folders["base"], "base", None, noise),
            None,
            target=find_target("cpu"),
            recipe=RECIPES["fp32"],
            calibration_size=None,
            progress=Silent(),
        ).parts["configuration"]
        for noise in (Noise(), Noise(prediction_type=V), Noise(prediction_type=V, zero_snr=True))
    }
    assert len(keys) == 3


def test_the_command_says_it_too(
    tiny_folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The marks of a file that contradicts itself are not asked any more; the next thing that is wrong is told."""
    base = tiny_folders["base"]
    extra = {"v_pred": torch.empty(0), "ztsnr": torch.empty(0)}
    notes = {"modelspec.prediction_type": "epsilon", "ss_zero_terminal_snr": "False"}
    file = write_single_file(base, tmp_path / "both.safetensors", extra=extra, metadata=notes)
    command = ("build", file, "--config", base, "-o", tmp_path / "engine", "--calibration-size", "7")
    for flags, status, says in (
        ((), 3, "--prediction-type epsilon or v_prediction"),
        (("--prediction-type", "v_prediction"), 3, "--zero-snr or --no-zero-snr"),
        (("--prediction-type", "v_prediction", "--zero-snr"), 2, "calibration size is 7"),
        (("--prediction-type", "epsilon", "--no-zero-snr"), 2, "calibration size is 7"),
        (("--prediction-type", "sample"), 2, "choose from 'epsilon', 'v_prediction'"),
        (("--vae", tmp_path / "nothing"), 5, "--vae takes a .safetensors file"),
    ):
        shown = run(capsys, *command, *flags)
        assert (shown.status, shown.err.count("\n")) == (status, 1)
        assert says in shown.err


def test_a_prediction_that_no_model_makes_is_a_request_error(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="'sample'; it must be epsilon or v_prediction"):
        build(tiny_folders["base"], tmp_path / "engine", prediction_type="sample")
