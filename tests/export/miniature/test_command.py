"""The command refuses what cannot work in one line, before anything is written."""

from pathlib import Path

import pytest
import torch
from torch import nn

from pocketxl.engine.errors import IncompatibleError, IntegrityError, RequestError
from pocketxl.export.miniature.__main__ import main
from pocketxl.export.miniature.budget import Budget
from pocketxl.export.miniature.models import Miniature, refiner_unet
from pocketxl.export.miniature.recipe import TrainingRecipe, check
from pocketxl.export.miniature.stages import read_model
from pocketxl.export.miniature.text import load_tokenizer
from pocketxl.export.miniature.trainer import Trainer, TrainingSettings


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    assets = tmp_path / "assets"
    assets.mkdir()
    return ["--assets", str(assets), "--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--minutes", "-1"], "minutes: -1.0 is not allowed"),
        (["--refiner-minutes", "nan"], "refiner minutes: nan"),
        (["--batch", "0"], "batch: 0"),
        (["--workers", "0"], "workers: 0"),
        (["--threads", "0"], "threads: 0"),
        (["--learning-rate", "inf"], "learning rate: inf"),
        (["--compositions", "9"], "compositions: 9"),
        (["--deadline", "25:99"], "deadline: '25:99' is no time of day; give HH:MM"),
        (["--start", "/nowhere"], "/nowhere has no tokenizer, tokenizer_2, vae"),
        (["--start-refiner", "/nowhere"], "/nowhere has no unet"),
        (["--minutes", "0"], "keep the base as it is, but there is none"),
        (["--refiner-minutes", "0"], "keep the refiner as it is, but there is none"),
        (["--vae-minutes", "0"], "keep the VAE as it is, but there is none"),
        ([], "no named picture"),
    ],
)
def test_one_line_and_nothing_written(
    folders: list[str], arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*folders, *arguments]) == RequestError.exit_code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["assets"]


def test_assets_that_are_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--assets", str(tmp_path / "no"), "--work", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "is no folder" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="sees no GPU"):
        check(TrainingRecipe(assets=tmp_path, work=tmp_path / "work", out=tmp_path / "out", device="cuda"))


def test_a_start_that_holds_another_model(tmp_path: Path) -> None:
    from diffusers import AutoencoderKL

    (tmp_path / "vae").mkdir()
    with pytest.raises(IncompatibleError, match="holds no AutoencoderKL"):
        read_model(AutoencoderKL, tmp_path / "vae")


def test_a_start_without_a_vocabulary(tmp_path: Path) -> None:
    with pytest.raises(IncompatibleError, match="holds no tokenizer"):
        load_tokenizer(tmp_path)


def test_a_damaged_checkpoint(toy: Miniature, tmp_path: Path) -> None:
    file = tmp_path / "refiner.pt"
    modules = nn.ModuleDict({"unet": refiner_unet(toy, 32)})
    _trainer(modules, file).save()
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(IntegrityError, match="delete it"):
        _trainer(modules, file)
    file.write_bytes(b"not a checkpoint")
    with pytest.raises(IntegrityError, match="delete it"):
        _trainer(modules, file)


def test_a_checkpoint_of_another_architecture(toy: Miniature, tmp_path: Path) -> None:
    file = tmp_path / "refiner.pt"
    _trainer(nn.ModuleDict({"unet": nn.Linear(2, 2)}), file).save()
    with pytest.raises(IncompatibleError, match="another architecture"):
        _trainer(nn.ModuleDict({"unet": refiner_unet(toy, 32)}), file)
    torch.save({"state": 1}, file)
    with pytest.raises(IncompatibleError, match="another architecture"):
        _trainer(nn.ModuleDict({"unet": refiner_unet(toy, 32)}), file)


def _trainer(modules: nn.ModuleDict, file: Path) -> Trainer:
    return Trainer(modules, lambda draw, progress: torch.zeros(()), Budget(steps=1), TrainingSettings(), file)
